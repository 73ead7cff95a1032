//! A reader on a narrow line who takes little, or nothing.

use std::time::Duration;

use anyhow::ensure;
use socket2::SockRef;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpSocket, TcpStream},
    time,
};

/// Bytes of a segment, as on the internet. Loopback's are so large that its buffers would take every answer whole.
const SEGMENT_BYTES: u32 = 1448;
const RECEIVE_BYTES: u32 = 4096;

/// How it reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Pace {
    /// Half a kilobyte, four times a second.
    Slow,
    /// Only the beginning.
    Stalled,
}

/// A stream that was begun.
#[derive(Debug)]
pub(crate) struct Reader {
    connection: TcpStream,
    pace: Pace,
}

impl Reader {
    /// Sends a request and waits for the beginning of its answer.
    pub(crate) async fn open(url: &str, body: &str, voucher: &str, pace: Pace) -> anyhow::Result<Self> {
        let address = url.trim_start_matches("http://").trim_end_matches("/v1").parse()?;
        let socket = TcpSocket::new_v4()?;
        socket.set_recv_buffer_size(RECEIVE_BYTES)?;
        SockRef::from(&socket).set_tcp_mss(SEGMENT_BYTES)?;
        let mut connection = socket.connect(address).await?;
        let request = format!(
            "POST /v1/completions HTTP/1.1\r\nhost: {address}\r\ncontent-type: application/json\r\n\
             hallmark-voucher: {voucher}\r\ncontent-length: {}\r\n\r\n{body}",
            body.len()
        );
        connection.write_all(request.as_bytes()).await?;
        let mut beginning = [0; 64];
        let read = connection.read(&mut beginning).await?;
        let status = String::from_utf8_lossy(&beginning[..read]).into_owned();
        ensure!(status.starts_with("HTTP/1.1 200 "), "refused: {}", status.lines().next().unwrap_or_default());
        Ok(Self { connection, pace })
    }

    /// Reads at its pace until it is dropped, or until the answer ends; then says whether it was complete.
    pub(crate) async fn read(mut self) -> anyhow::Result<bool> {
        if self.pace == Pace::Stalled {
            std::future::pending::<()>().await;
        }
        let mut end = Vec::new();
        let mut piece = [0; 512];
        loop {
            time::sleep(Duration::from_millis(250)).await;
            let read = self.connection.read(&mut piece).await?;
            end.extend_from_slice(&piece[..read]);
            if end.windows(DONE.len()).any(|window| window == DONE) {
                return Ok(true);
            }
            if read == 0 {
                return Ok(false);
            }
            // Its last bytes may be the beginning of the end.
            end.drain(..end.len().saturating_sub(DONE.len()));
        }
    }
}

const DONE: &[u8] = b"data: [DONE]";
