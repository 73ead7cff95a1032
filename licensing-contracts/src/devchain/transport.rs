//! The chain as an alloy transport.

use std::task::{Context, Poll};

use alloy::{
    rpc::json_rpc::{RequestPacket, Response, ResponsePacket, ResponsePayload, SerializedRequest},
    transports::{TransportError, TransportFut},
};

use super::DevChain;

/// Carries an alloy client's requests to a [`DevChain`] in the same process.
#[derive(Clone, Debug)]
pub struct DevTransport(DevChain);

impl DevTransport {
    pub(super) const fn new(chain: DevChain) -> Self {
        Self(chain)
    }

    fn answer(&self, request: &SerializedRequest) -> Response {
        let payload = match self.0.request(request.method(), request.params()) {
            Ok(result) => ResponsePayload::Success(result),
            Err(error) => ResponsePayload::Failure(error),
        };
        Response { id: request.id().clone(), payload }
    }
}

impl tower::Service<RequestPacket> for DevTransport {
    type Response = ResponsePacket;
    type Error = TransportError;
    type Future = TransportFut<'static>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), TransportError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, packet: RequestPacket) -> Self::Future {
        let transport = self.clone();
        // Answered on the caller's thread: a request takes microseconds, and the largest call a fraction of a second.
        Box::pin(async move {
            Ok(match packet {
                RequestPacket::Single(request) => ResponsePacket::Single(transport.answer(&request)),
                RequestPacket::Batch(requests) => {
                    ResponsePacket::Batch(requests.iter().map(|request| transport.answer(request)).collect())
                }
            })
        })
    }
}
