use super::*;

fn version(byte: u8) -> Version {
    Version { hash: B256::repeat_byte(byte), raw: vec![byte; 9].into(), max_fee: 10, tip: 1 }
}

fn transaction(nonce: u64) -> Open {
    let what = format!("the {nonce}th");
    Open { nonce, intent: B256::ZERO, work: None, what, block: 1, versions: Vec::new(), settled: None }
}

fn open(folder: &Path) -> Result<TransactionJournal, JournalError> {
    TransactionJournal::open(folder, 31_337, Address::repeat_byte(1))
}

#[test]
fn open_transactions_survive_and_closed_ones_do_not() {
    let folder = tempfile::tempdir().unwrap();
    let mut journal = open(folder.path()).unwrap();
    let of_work = Open { work: Some(B256::repeat_byte(9)), ..transaction(6) };
    journal.signed(&transaction(4), &version(1)).unwrap();
    journal.signed(&transaction(5), &version(2)).unwrap();
    journal.signed(&transaction(5), &version(3)).unwrap();
    journal.signed(&of_work, &version(4)).unwrap();
    assert_eq!(journal.mined_nonce(), None);
    journal.closed(4, Some(B256::repeat_byte(1))).unwrap();
    assert_eq!(journal.mined_nonce(), Some(4));
    journal.settled(6, B256::repeat_byte(4)).unwrap();
    drop(journal);

    let mut journal = open(folder.path()).unwrap();
    let found: Vec<&Open> = journal.open_transactions().collect();
    assert_eq!(found.len(), 2);
    assert_eq!((found[0].nonce, found[0].what.as_str(), found[0].block), (5, "the 5th", 1));
    assert_eq!(found[0].versions.iter().map(|version| version.hash[0]).collect::<Vec<_>>(), [2, 3]);
    assert_eq!((found[0].settled, found[1].settled), (None, Some(B256::repeat_byte(4))));
    assert_eq!(found[1].work, of_work.work);
    assert_eq!((journal.next_nonce(), journal.mined_nonce()), (Some(7), Some(6)));
    // Something else took it: nothing of ours was mined.
    journal.closed(5, None).unwrap();
    journal.closed(6, Some(B256::repeat_byte(4))).unwrap();
    assert_eq!((journal.next_nonce(), journal.mined_nonce()), (None, Some(6)));
}

#[test]
fn a_half_written_line_is_dropped_and_a_damaged_one_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let mut journal = open(folder.path()).unwrap();
    journal.signed(&transaction(0), &version(1)).unwrap();
    let path = journal.path.clone();
    drop(journal);
    let whole = std::fs::read(&path).unwrap();
    // Cut anywhere; also inside a character, or in blocks that a power failure left empty.
    let mut ends: Vec<Vec<u8>> = [1, 20, whole.len() - 1].map(|cut| whole[..cut].to_vec()).into();
    ends.extend([b"{\"signed\":{\"what\":\"gr\xc3".to_vec(), vec![0; 4_096]]);
    for end in ends {
        std::fs::write(&path, [&whole[..], &end].concat()).unwrap();
        let mut journal = open(folder.path()).unwrap();
        assert_eq!(journal.open_transactions().count(), 1, "{end:?}");
        journal.closed(0, None).unwrap();
        drop(journal);
        assert_eq!(open(folder.path()).unwrap().open_transactions().count(), 0, "{end:?}");
    }
    for damaged in
        [&b"{\"signed\":1}\n"[..], b"\n", b"\xff\n", b"{\"closed\":{\"nonce\":1,\"hash\":null,\"more\":1}}\n"]
    {
        std::fs::write(&path, [&whole[..], damaged, &whole].concat()).unwrap();
        let error = open(folder.path()).unwrap_err();
        assert!(matches!(error, JournalError::Damaged { line: 2, .. }), "{error}");
        assert_eq!(std::fs::read(&path).unwrap().len(), whole.len() * 2 + damaged.len(), "nothing is repaired away");
    }
}

#[test]
fn a_line_after_one_that_the_disk_did_not_take_stands_alone() {
    let folder = tempfile::tempdir().unwrap();
    let mut journal = open(folder.path()).unwrap();
    journal.signed(&transaction(0), &version(1)).unwrap();
    // What is left of a write that failed half-way.
    journal.file.write_all(b"{\"signed\":{\"non").unwrap();
    journal.is_torn = true;
    journal.signed(&transaction(1), &version(2)).unwrap();
    drop(journal);
    assert_eq!(open(folder.path()).unwrap().open_transactions().count(), 2);
}

#[test]
fn a_large_file_with_nothing_open_is_emptied_and_one_with_something_is_not() {
    let folder = tempfile::tempdir().unwrap();
    let mut journal = open(folder.path()).unwrap();
    let large = Version { raw: vec![7; 600_000].into(), ..version(1) };
    journal.signed(&transaction(0), &large).unwrap();
    let path = journal.path.clone();
    let length = || std::fs::metadata(&path).unwrap().len();
    drop(journal);
    let before = length();
    let mut journal = open(folder.path()).unwrap();
    assert_eq!((length(), journal.open_transactions().count()), (before, 1));
    journal.closed(0, Some(B256::repeat_byte(1))).unwrap();
    drop(journal);
    let journal = open(folder.path()).unwrap();
    assert_eq!((length(), journal.mined_nonce()), (0, Some(0)));
}

#[test]
fn one_process_at_a_time() {
    let folder = tempfile::tempdir().unwrap();
    let first = open(folder.path()).unwrap();
    let error = open(folder.path()).unwrap_err();
    assert!(matches!(error, JournalError::InUse { .. }), "{error}");
    drop(first);
    open(folder.path()).unwrap();
}
