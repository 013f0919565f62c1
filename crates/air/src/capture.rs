//! Recording packets as pcapng while the medium runs.
//!
//! The medium's thread copies what a capture wants into a bounded channel and never waits for it; a thread of the
//! capture's own writes. The interfaces of the file are the endpoints, then the links, by their names.

use std::io::{self, BufWriter, Write};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TryRecvError, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

use rustix::time::{ClockId, clock_gettime};
use serde::{Deserialize, Serialize};

use crate::core::{Observer, Point};
use crate::error::AirError;
use crate::pcapng::{Direction, PcapNg};
use crate::spec::{EndpointId, LinkId};

/// Records that wait for a capture's writer at most.
const RECORDS_MAX: usize = 8192;

/// Which packets a capture records.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum CaptureFilter {
    /// What every endpoint sends and receives, and every drop (with its cause as the packet's comment).
    All,
    /// What this endpoint sends and receives, and what it is refused.
    Endpoint(EndpointId),
    /// What enters this link, and what the link drops.
    Link(LinkId),
}

/// Where a capture is written.
pub type CaptureWriter = Box<dyn Write + Send>;

struct Record {
    interface: u32,
    time_ns: u64,
    direction: Direction,
    comment: Option<&'static str>,
    bytes: Vec<u8>,
}

/// The medium's end of a capture.
pub(crate) struct Tap {
    id: u32,
    filter: CaptureFilter,
    endpoints: u32,
    /// CLOCK_REALTIME − CLOCK_MONOTONIC.
    epoch_ns: u64,
    records: SyncSender<Record>,
}

/// The writer's end; it ends when its tap is gone.
pub(crate) type CaptureThread = JoinHandle<io::Result<CaptureWriter>>;

/// The running captures, shared by the medium's driver, which changes them, and its core, which feeds them.
#[derive(Clone, Default)]
pub(crate) struct Taps {
    taps: Arc<Mutex<Vec<Tap>>>,
    missed: Arc<AtomicU64>,
}

/// Starts a capture's writer. `names` are the file's interfaces, the first `endpoints` of them endpoints.
pub(crate) fn start(
    id: u32,
    filter: CaptureFilter,
    writer: CaptureWriter,
    names: Arc<[String]>,
    endpoints: usize,
) -> Result<(Tap, CaptureThread), AirError> {
    let unknown = |what, index, count| Err(AirError::Unknown { what, index, count });
    match filter {
        CaptureFilter::Endpoint(e) if e.index() >= endpoints => {
            return unknown("endpoint", e.index(), endpoints);
        }
        CaptureFilter::Link(link) if link.index() >= names.len() - endpoints => {
            return unknown("link", link.index(), names.len() - endpoints);
        }
        _ => {}
    }
    let (records, queue) = sync_channel(RECORDS_MAX);
    let thread = std::thread::Builder::new()
        .name("air-capture".to_owned())
        .spawn(move || write_records(writer, &names, &queue))
        .map_err(AirError::io("starting a capture's thread"))?;
    let epoch_ns = clock_ns(ClockId::Realtime).saturating_sub(clock_ns(ClockId::Monotonic));
    Ok((Tap { id, filter, endpoints: endpoints as u32, epoch_ns, records }, thread))
}

fn write_records(
    writer: CaptureWriter,
    names: &[String],
    queue: &Receiver<Record>,
) -> io::Result<CaptureWriter> {
    let mut file = PcapNg::new(BufWriter::new(writer), names.iter().map(String::as_str))?;
    file.flush()?;
    loop {
        let record = match queue.try_recv() {
            Ok(record) => record,
            Err(TryRecvError::Disconnected) => break,
            // With nothing to do, everything recorded becomes visible to whoever follows the file.
            Err(TryRecvError::Empty) => {
                file.flush()?;
                match queue.recv() {
                    Ok(record) => record,
                    Err(_) => break,
                }
            }
        };
        let Record { interface, time_ns, direction, comment, bytes } = record;
        file.packet(interface, time_ns, direction, &bytes, comment)?;
    }
    file.finish()?.into_inner().map_err(io::IntoInnerError::into_error)
}

pub(crate) fn clock_ns(clock: ClockId) -> u64 {
    let time = clock_gettime(clock);
    time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64
}

impl Taps {
    pub(crate) fn add(&self, tap: Tap) {
        self.taps.lock().unwrap_or_else(PoisonError::into_inner).push(tap);
    }

    /// Ends a capture, which lets its writer finish. True when none is left.
    ///
    /// # Errors
    /// [`AirError::Capture`] when there is no such capture.
    pub(crate) fn remove(&self, id: u32) -> Result<bool, AirError> {
        let mut taps = self.taps.lock().unwrap_or_else(PoisonError::into_inner);
        let place = taps.iter().position(|tap| tap.id == id).ok_or(AirError::Capture(id))?;
        taps.swap_remove(place);
        Ok(taps.is_empty())
    }

    /// Records that did not fit.
    pub(crate) fn missed(&self) -> u64 {
        self.missed.load(Ordering::Relaxed)
    }
}

impl Observer for Taps {
    fn packet(&mut self, point: Point, time_ns: u64, bytes: &[u8]) {
        let taps = self.taps.lock().unwrap_or_else(PoisonError::into_inner);
        for tap in taps.iter() {
            if let Some(record) = tap.record(point, time_ns, bytes)
                && tap.records.try_send(record).is_err()
            {
                self.missed.fetch_add(1, Ordering::Relaxed);
            }
        }
    }
}

impl Tap {
    fn record(&self, point: Point, time_ns: u64, bytes: &[u8]) -> Option<Record> {
        let wanted = match (self.filter, point) {
            (CaptureFilter::All, Point::Entered(_)) => false,
            (CaptureFilter::All, _) => true,
            (
                CaptureFilter::Endpoint(wanted),
                Point::Read(endpoint) | Point::Written(endpoint) | Point::Refused(endpoint, _),
            ) => wanted == endpoint,
            (CaptureFilter::Link(wanted), Point::Entered(link) | Point::Dropped(link, _)) => wanted == link,
            _ => false,
        };
        if !wanted {
            return None;
        }
        let (interface, direction, cause) = match point {
            Point::Read(endpoint) => (u32::from(endpoint.0), Direction::Outbound, None),
            Point::Written(endpoint) => (u32::from(endpoint.0), Direction::Inbound, None),
            Point::Refused(endpoint, cause) => (u32::from(endpoint.0), Direction::Unknown, Some(cause)),
            Point::Entered(link) => (self.endpoints + link.0, Direction::Unknown, None),
            Point::Dropped(link, cause) => (self.endpoints + link.0, Direction::Unknown, Some(cause)),
        };
        let comment = cause.map(crate::meters::DropCause::as_comment);
        Some(Record {
            interface,
            time_ns: time_ns + self.epoch_ns,
            direction,
            comment,
            bytes: bytes.to_vec(),
        })
    }
}
