//! Sessions, writer and maintenance thread together: tickets, receipts, room, closing, and what happens when the disk fails under them.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use odograph_faulty_disk::FaultyDisk;
use odograph_journal::Position;
use odograph_journal::{
    AppendError, EntryKind, FullCause, Journal, JournalState, Limits, NewEntry, OpenError, Options, Reader, Storage,
};
use support::gated::{GatedDisk, OpenAtEnd};
use support::options;
use teltonika_codecs::Imei;

fn entry(records: u8, bytes: &[u8]) -> NewEntry<'_> {
    let imei = Imei::try_from(356_307_042_441_013).unwrap();
    NewEntry { kind: EntryKind::Frame, imei, received_at_us: 5, records, bytes }
}

fn journal(storage: impl Storage + 'static) -> Journal {
    Journal::open(Arc::new(storage), options(), Box::new(|_| {})).unwrap().0
}

fn block_on<T>(future: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    runtime.block_on(async { tokio::time::timeout(Duration::from_secs(20), future).await.expect("it comes to an end") })
}

fn poll_once<F: Future>(future: std::pin::Pin<&mut F>) -> Poll<F::Output> {
    future.poll(&mut Context::from_waker(Waker::noop()))
}

#[test]
fn there_is_no_receipt_and_nothing_to_read_before_the_sync() {
    let disk = GatedDisk::new(1);
    let journal = journal(disk.clone());
    let _open = OpenAtEnd(Arc::clone(&disk.gate));
    disk.gate.close();
    let appender = journal.appender();
    let mut reader = Reader::open(journal.catalog(), Position(0)).unwrap();
    let mut first = pin!(appender.try_append(&entry(7, b"first")).unwrap());
    assert!(poll_once(first.as_mut()).is_pending());
    disk.gate.wait_for_sync();
    let mut second = pin!(appender.try_append(&entry(9, b"second")).unwrap());
    assert!(poll_once(first.as_mut()).is_pending(), "it is written and not synced");
    assert!(poll_once(second.as_mut()).is_pending());
    assert!(!reader.is_ready() && !reader.wait(Duration::ZERO));
    assert!(reader.next().unwrap().is_none());
    assert!(poll_once(pin!(reader.ready())).is_pending());

    disk.gate.open();
    let (first, second) = block_on(async { (first.await.unwrap(), second.await.unwrap()) });
    assert_eq!((first.into_records(), second.into_records()), (7, 9));
    assert!(reader.wait(Duration::ZERO));
    assert_eq!(reader.next().unwrap().unwrap().entry, entry(7, b"first"));
    assert_eq!(reader.next().unwrap().unwrap().entry, entry(9, b"second"));
    assert!(reader.next().unwrap().is_none());
}

#[test]
fn at_two_groups_of_memory_appending_waits_and_loses_nothing() {
    let disk = GatedDisk::new(2);
    let journal = journal(disk.clone());
    let _open = OpenAtEnd(Arc::clone(&disk.gate));
    disk.gate.close();
    let appender = journal.appender();
    let bytes = [5; 1000];
    let first = appender.try_append(&entry(1, &bytes)).unwrap();
    disk.gate.wait_for_sync();
    // One group is on its way; the next one takes three of these.
    let rest = [0; 3].map(|_| appender.try_append(&entry(1, &bytes)).unwrap());
    assert!(matches!(appender.try_append(&entry(1, &bytes)), Err(AppendError::NoRoom)));
    {
        let mut waits = pin!(appender.append(entry(1, b"given up")));
        assert!(poll_once(waits.as_mut()).is_pending());
    }
    let mut waits = pin!(appender.append(entry(2, &bytes)));
    assert!(poll_once(waits.as_mut()).is_pending());
    disk.gate.open();
    let last = block_on(async {
        for ticket in [first].into_iter().chain(rest) {
            ticket.await.unwrap();
        }
        waits.await.unwrap().await.unwrap()
    });
    assert_eq!(last.into_records(), 2);
    assert_eq!(journal.catalog().status().entries, 5, "the one that was given up is not there");
    assert!(matches!(appender.try_append(&entry(1, &[0; 4000])), Err(AppendError::TooLarge { bytes: 4000 })));
}

#[test]
fn many_sessions_each_get_their_own_count() {
    let limits = Limits::with_pieces(8 << 20, 1 << 20, 3 << 10, Duration::ZERO).unwrap();
    let options = Options { limits, ..options() };
    let (journal, _) = Journal::open(Arc::new(FaultyDisk::new(3)), options, Box::new(|_| {})).unwrap();
    let taken = block_on(async {
        let tasks = (0..200_u8).map(|session| {
            let appender = journal.appender();
            tokio::spawn(async move {
                let mut taken = 0;
                for round in 0..5 {
                    // A batch: several are unanswered at a time.
                    let mut tickets = Vec::new();
                    for frame in 0..4 {
                        let bytes = [session, round, frame];
                        tickets.push((frame, appender.append(entry(session ^ frame, &bytes)).await.unwrap()));
                    }
                    for (frame, ticket) in tickets {
                        assert_eq!(ticket.await.unwrap().into_records(), session ^ frame);
                        taken += 1;
                    }
                }
                taken
            })
        });
        let mut taken = 0;
        for task in tasks.collect::<Vec<_>>() {
            taken += task.await.unwrap();
        }
        taken
    });
    let mut reader = Reader::open(journal.catalog(), Position(0)).unwrap();
    let mut next = [(0, 0); 200];
    let mut read = 0;
    while let Some(entry) = reader.next().unwrap() {
        let [session, round, frame] = *entry.entry.bytes else { panic!("three bytes") };
        assert_eq!(
            std::mem::replace(&mut next[usize::from(session)], (round, frame)).max((round, frame)),
            (round, frame)
        );
        read += 1;
    }
    assert_eq!(read, taken);
    let status = journal.catalog().status();
    assert_eq!(status.entries, taken);
    assert!(status.groups < taken / 2, "sessions share syncs: {} groups", status.groups);
}

#[test]
fn closing_writes_what_was_taken_in() {
    let disk = FaultyDisk::new(4);
    let journal = journal(disk.clone());
    let appender = journal.appender();
    let tickets: Vec<_> = (0..3).map(|at| appender.try_append(&entry(at, &[at])).unwrap()).collect();
    journal.close().unwrap();
    for (at, ticket) in (0..).zip(tickets) {
        assert_eq!(block_on(ticket).unwrap().into_records(), at);
    }
    assert!(matches!(appender.try_append(&entry(1, b"late")), Err(AppendError::Closed)));
    assert!(matches!(block_on(appender.append(entry(1, b"late"))), Err(AppendError::Closed)));
    disk.power_cycle();
    assert_eq!(support::open(&disk, 9).unwrap().1.entries, 3);
}

#[test]
fn a_full_journal_holds_sessions_until_it_drains() {
    let journal = journal(FaultyDisk::new(5));
    let appender = journal.appender();
    let bytes = [1; 2000];
    let catalog = Arc::clone(journal.catalog());
    block_on(async {
        let writer = tokio::spawn(async move {
            for _ in 0..80 {
                appender.append(entry(1, &bytes)).await.unwrap().await.unwrap();
            }
        });
        while catalog.status().state != JournalState::Full(FullCause::Limit) {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        assert!(!writer.is_finished());
        let mut reader = Reader::open(&catalog, Position(0)).unwrap();
        let mut read = 0;
        while read < 80 {
            reader.ready().await;
            while reader.next().unwrap().is_some() {
                read += 1;
            }
            catalog.release(reader.cursor().position).unwrap();
        }
        writer.await.unwrap();
    });
    assert_eq!(journal.catalog().status().state, JournalState::Open);
    journal.close().unwrap();
}

#[test]
fn closing_a_full_journal_tells_those_who_wait() {
    let journal = journal(FaultyDisk::new(6));
    let appender = journal.appender();
    let bytes = [1; 2000];
    let mut ticket = loop {
        let mut ticket = Box::pin(block_on(appender.append(entry(1, &bytes))).unwrap());
        while poll_once(ticket.as_mut()).is_pending() && journal.catalog().status().state == JournalState::Open {
            std::thread::yield_now();
        }
        if journal.catalog().status().state != JournalState::Open {
            break ticket;
        }
    };
    journal.close().unwrap();
    assert!(matches!(poll_once(ticket.as_mut()), Poll::Ready(Err(AppendError::Closed))));
}

#[test]
fn a_failed_sync_answers_nobody_and_says_so_to_everybody() {
    let disk = GatedDisk::new(7);
    let journal = journal(disk.clone());
    let _open = OpenAtEnd(Arc::clone(&disk.gate));
    disk.gate.close();
    let appender = journal.appender();
    let first = appender.try_append(&entry(1, b"first")).unwrap();
    disk.gate.wait_for_sync();
    let second = appender.try_append(&entry(1, b"second")).unwrap();
    let filler = appender.try_append(&entry(1, &[0; 2900])).unwrap();
    let mut waits = pin!(appender.append(entry(1, &[0; 1000])));
    assert!(poll_once(waits.as_mut()).is_pending());
    disk.gate.fails.store(true, Ordering::SeqCst);
    disk.gate.open();
    block_on(async {
        for ticket in [first, second, filler] {
            assert!(matches!(ticket.await, Err(AppendError::Poisoned(error)) if error.doing == "syncing a group"));
        }
        assert!(matches!(waits.await, Err(AppendError::Poisoned(_))));
        assert!(matches!(appender.append(entry(1, b"later")).await, Err(AppendError::Poisoned(_))));
    });
    let mut reader = Reader::open(journal.catalog(), Position(0)).unwrap();
    assert!(reader.wait(Duration::ZERO) && reader.next().is_err());
    assert_eq!(journal.catalog().status().state, JournalState::Poisoned);
    assert_eq!(journal.close().unwrap_err().doing, "syncing a group");
}

#[test]
fn one_process_at_a_time_works_on_a_journal() {
    let disk = FaultyDisk::new(8);
    let first = journal(disk.clone());
    let second = Journal::open(Arc::new(disk.clone()), options(), Box::new(|_| {}));
    assert!(matches!(second, Err(OpenError::Locked)));
    first.close().unwrap();
    journal(disk).close().unwrap();
}

#[test]
fn every_sync_is_told() {
    let told = Arc::new(AtomicU64::new(0));
    let on_sync = {
        let told = Arc::clone(&told);
        Box::new(move |took: Duration| {
            assert!(took < Duration::from_secs(10));
            told.fetch_add(1, Ordering::SeqCst);
        })
    };
    let (journal, _) = Journal::open(Arc::new(FaultyDisk::new(9)), options(), on_sync).unwrap();
    for _ in 0..3 {
        block_on(journal.appender().try_append(&entry(1, b"x")).unwrap()).unwrap();
    }
    assert_eq!(told.load(Ordering::SeqCst), 3);
}

#[test]
fn the_segment_that_knows_where_the_journal_ends_stays_until_the_next_one_does() {
    let disk = GatedDisk::new(11);
    let limits = Limits::with_pieces(80 << 10, 8 << 10, 3 << 10, Duration::ZERO).unwrap();
    let options = Options { limits, ..options() };
    let (journal, _) = Journal::open(Arc::new(disk.clone()), options, Box::new(|_| {})).unwrap();
    let _open = OpenAtEnd(Arc::clone(&disk.gate));
    let bytes = [1; 2900];
    let appender = journal.appender();
    for _ in 0..2 {
        block_on(appender.try_append(&entry(1, &bytes)).unwrap()).unwrap();
    }
    disk.gate.close();
    // The third begins the next segment; everything that is synced stands in the first, and is released.
    let third = appender.try_append(&entry(1, &bytes)).unwrap();
    disk.gate.wait_for_sync();
    journal.catalog().release(journal.catalog().status().end).unwrap();
    std::thread::sleep(Duration::from_millis(50));
    assert_eq!(support::segments(&disk.disk)[0], "00000000000000000001.seg");
    disk.gate.open();
    block_on(third).unwrap();
    let first_goes = || support::segments(&disk.disk)[0] != "00000000000000000001.seg";
    journal.catalog().release(journal.catalog().status().end).unwrap();
    while !first_goes() {
        std::thread::yield_now();
    }
}

#[test]
fn a_session_allocates_nothing_for_an_entry() {
    let disk = GatedDisk::new(10);
    let journal = journal(disk.clone());
    let _open = OpenAtEnd(Arc::clone(&disk.gate));
    let appender = journal.appender();
    let bytes = [7; 100];
    let append_ten = || {
        let mut tickets = [const { None }; 10];
        for ticket in &mut tickets {
            *ticket = Some(appender.try_append(&entry(1, &bytes)).unwrap());
        }
        for ticket in &mut tickets {
            assert!(poll_once(pin!(ticket.as_mut().unwrap())).is_pending());
        }
        tickets
    };
    // The buffers and the lists of wakers get their size.
    for _ in 0..6 {
        disk.gate.close();
        let first = append_ten();
        disk.gate.wait_for_sync();
        let second = append_ten();
        disk.gate.open();
        block_on(async {
            for ticket in first.into_iter().chain(second) {
                ticket.unwrap().await.unwrap();
            }
        });
    }
    disk.gate.close();
    let first = appender.try_append(&entry(1, &bytes)).unwrap();
    disk.gate.wait_for_sync();
    let measured = allocation_counter::measure(|| drop(append_ten()));
    disk.gate.open();
    block_on(first).unwrap();
    assert_eq!(measured.count_total, 0);
}

#[tokio::test]
async fn a_panic_of_the_writer_poisons_the_journal() {
    let panics = Box::new(|_| panic!("as a fault of this program would"));
    let (journal, _) = Journal::open(Arc::new(FaultyDisk::new(9)), options(), panics).unwrap();
    let ended = tokio::time::timeout(Duration::from_secs(10), async {
        loop {
            let ticket = match journal.appender().append(entry(1, b"bytes")).await {
                Ok(ticket) => ticket,
                Err(error) => break error,
            };
            if let Err(error) = ticket.await {
                break error;
            }
        }
    });
    let ended = ended.await.expect("nobody waits forever");
    assert!(matches!(ended, AppendError::Poisoned(_) | AppendError::Closed), "{ended:?}");
    // What the process watches, and ends for.
    let poisoned = async {
        while journal.catalog().status().state != JournalState::Poisoned {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(10), poisoned).await.expect("the journal says that it failed");
    assert!(journal.close().is_err());
}
