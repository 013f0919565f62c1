//! Small senders and receivers that the benchmark runs inside nodes: itself again, told by its first argument what to be.
//!
//! Each one that lasts ends when its standard input closes, and says on its standard output what it has seen. Times are
//! CLOCK_REALTIME, in which the kernel stamps packets on their arrival.

use std::{
    collections::BTreeMap,
    fs,
    io::{self, BufRead, BufReader, IoSliceMut, Read, Write},
    net::{SocketAddr, TcpListener, TcpStream, UdpSocket},
    os::fd::AsRawFd,
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use nix::sys::{
    socket::{ControlMessageOwned, MsgFlags, recvmsg, setsockopt, sockopt},
    time::TimeSpec,
};

use super::{Result, itself, session::Session};

/// Where senders find receivers.
pub const PORT: u16 = 7001;

const UDP_SINK: &str = "__udp-sink";
const UDP_SOURCE: &str = "__udp-source";
const TCP_SINK: &str = "__tcp-sink";
const TCP_SOURCE: &str = "__tcp-source";
const METER: &str = "__meter";

/// Runs one of these programs if `args` name one.
pub fn play(args: &[String]) -> Option<Result<()>> {
    let number = |i: usize| args.get(i).and_then(|text| text.parse::<u64>().ok()).unwrap_or_default();
    let peer = || args.get(1).cloned().unwrap_or_default();
    match args.first()?.as_str() {
        UDP_SINK => Some(udp_sink()),
        UDP_SOURCE => {
            Some(send_datagrams(&peer(), number(2), Duration::from_micros(number(3)), number(4) as usize))
        }
        TCP_SINK => Some(tcp_sink()),
        TCP_SOURCE => Some(send_stream(&peer())),
        METER => Some(meter(Duration::from_micros(number(1)))),
        super::load::BURN => Some(super::load::burn()),
        _ => None,
    }
}

/// Nanoseconds since 1970.
pub fn now_ns() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_nanos() as u64)
}

/// A program at a node that lasts until it is told to end.
pub struct Lasting {
    child: Child,
    input: Option<ChildStdin>,
    output: BufReader<ChildStdout>,
}

impl Lasting {
    /// Starts it and waits until it says that it is ready.
    fn start(mut command: Command, ready: &str) -> Result<Self> {
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
        let input = child.stdin.take();
        let stdout = child.stdout.take().ok_or("a child without standard output")?;
        let mut lasting = Self { child, input, output: BufReader::new(stdout) };
        loop {
            let line = lasting.line()?;
            if line.contains(ready) {
                return Ok(lasting);
            }
        }
    }

    fn line(&mut self) -> Result<String> {
        let mut line = String::new();
        if self.output.read_line(&mut line)? == 0 {
            return Err(format!("a program at a node ended early ({})", self.child.wait()?).into());
        }
        Ok(line)
    }

    fn say(&mut self, line: &str) -> Result<()> {
        let input = self.input.as_mut().ok_or("a program that has been told to end")?;
        Ok(input.write_all(line.as_bytes())?)
    }

    /// Tells it to end, and returns the rest of what it says.
    fn end(mut self) -> Result<Vec<u8>> {
        self.input = None;
        let mut rest = Vec::new();
        self.output.read_to_end(&mut rest)?;
        self.child.wait()?;
        Ok(rest)
    }
}

impl Drop for Lasting {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// iperf3's server for one client.
pub fn iperf_server(session: &Session<'_>, node: &str) -> Result<Lasting> {
    let command = session.exec(node, "iperf3".as_ref(), ["-s", "-1", "--forceflush"]);
    Lasting::start(command, "listening")
}

/// True once standard input has closed.
fn until_told() -> Arc<AtomicBool> {
    let told = Arc::new(AtomicBool::new(false));
    let flag = Arc::clone(&told);
    thread::spawn(move || {
        let _ = io::copy(&mut io::stdin(), &mut io::sink());
        flag.store(true, Ordering::Relaxed);
    });
    told
}

/// A datagram as its receiver saw it.
#[derive(Clone, Copy, Debug)]
pub struct Seen {
    /// Its number, from 0.
    pub sequence: u64,
    /// When it was handed to the kernel.
    pub sent_ns: u64,
    /// When it came out of the interface.
    pub received_ns: u64,
}

impl Seen {
    /// The time that it took, milliseconds.
    pub fn took_ms(&self) -> f64 {
        (self.received_ns as f64 - self.sent_ns as f64) / 1e6
    }
}

/// Receives datagrams at a node.
pub struct UdpSink(Lasting);

impl UdpSink {
    /// Starts it.
    pub fn start(session: &Session<'_>, node: &str) -> Result<Self> {
        Ok(Self(Lasting::start(session.exec(node, &itself()?, [UDP_SINK]), "ready")?))
    }

    /// All that it received, in order of arrival.
    pub fn end(self) -> Result<Vec<Seen>> {
        let bytes = self.0.end()?;
        let number = |chunk: &[u8], i: usize| {
            chunk[8 * i..8 * i + 8].iter().rev().fold(0, |n, b| n << 8 | u64::from(*b))
        };
        let seen = |chunk: &[u8]| Seen {
            sequence: number(chunk, 0),
            sent_ns: number(chunk, 1),
            received_ns: number(chunk, 2),
        };
        Ok(bytes.chunks_exact(24).map(seen).collect())
    }
}

fn udp_sink() -> Result<()> {
    let told = until_told();
    let socket = UdpSocket::bind(("0.0.0.0", PORT))?;
    socket.set_read_timeout(Some(Duration::from_millis(20)))?;
    // Room for a scheduler's pause of some 100 ms; needs CAP_NET_ADMIN, which the owner of a node has.
    let _ = setsockopt(&socket, sockopt::RcvBufForce, &(64 << 20));
    setsockopt(&socket, sockopt::ReceiveTimestampns, &true)?;
    println!("ready");
    let (mut records, mut buffer) = (Vec::new(), [0_u8; 2048]);
    loop {
        match receive(&socket, &mut buffer) {
            Ok(Some(received_ns)) => {
                records.extend_from_slice(&buffer[..16]);
                records.extend_from_slice(&received_ns.to_le_bytes());
            }
            Ok(None) if told.load(Ordering::Relaxed) => break,
            Ok(None) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(io::stdout().write_all(&records)?)
}

/// Receives one datagram; when the kernel took it in, or `None` for none.
fn receive(socket: &UdpSocket, buffer: &mut [u8]) -> Result<Option<u64>> {
    let mut parts = [IoSliceMut::new(buffer)];
    let mut control = nix::cmsg_space!(TimeSpec);
    let message = match recvmsg::<()>(socket.as_raw_fd(), &mut parts, Some(&mut control), MsgFlags::empty()) {
        Ok(message) => message,
        Err(nix::errno::Errno::EAGAIN | nix::errno::Errno::EINTR) => return Ok(None),
        Err(errno) => return Err(errno.into()),
    };
    for extra in message.cmsgs()? {
        if let ControlMessageOwned::ScmTimestampns(time) = extra {
            return Ok(Some(time.tv_sec() as u64 * 1_000_000_000 + time.tv_nsec() as u64));
        }
    }
    Err("a datagram came without the kernel's time".into())
}

/// A command that sends `count` datagrams of `bytes` (IP packet) each, one every `interval`.
pub fn udp_source(
    session: &Session<'_>,
    from: &str,
    to: &str,
    count: u64,
    interval: Duration,
    bytes: usize,
) -> Result<Command> {
    let words = [count, interval.as_micros() as u64, bytes as u64].map(|number| number.to_string());
    Ok(session.exec(
        from,
        &itself()?,
        [&[UDP_SOURCE.to_owned(), format!("{to}:{PORT}")][..], &words].concat(),
    ))
}

/// Bytes of IPv4 and UDP headers.
const UDP_HEADERS: usize = 28;

fn send_datagrams(to: &str, count: u64, interval: Duration, bytes: usize) -> Result<()> {
    let socket = UdpSocket::bind(("0.0.0.0", 0))?;
    socket.connect(to)?;
    dtwn_sys::sched::set_timer_slack_ns(1)?;
    let mut datagram = vec![0; bytes.saturating_sub(UDP_HEADERS).max(16)];
    let begun = Instant::now();
    for sequence in 0..count {
        let due = interval * u32::try_from(sequence)?;
        // Sleeping costs more than some intervals last: catch up in batches of half a millisecond then.
        let early = due.saturating_sub(begun.elapsed());
        if early >= interval.max(Duration::from_micros(500))
            || (!early.is_zero() && interval.as_micros() >= 500)
        {
            thread::sleep(early);
        }
        datagram[..8].copy_from_slice(&sequence.to_le_bytes());
        datagram[8..16].copy_from_slice(&now_ns().to_le_bytes());
        socket.send(&datagram)?;
    }
    Ok(())
}

/// What a node's interface had taken in at some times.
#[derive(Clone, Copy, Debug)]
pub struct Taken {
    /// When.
    pub at_ns: u64,
    /// Bytes of whole IP packets.
    pub bytes: u64,
}

/// Reads the counters of a node's interface, which know nothing of dtwn's own.
pub struct Meter(Lasting);

impl Meter {
    /// Starts it; it looks once an `interval`.
    pub fn start(session: &Session<'_>, node: &str, interval: Duration) -> Result<Self> {
        let words = [METER.to_owned(), interval.as_micros().to_string()];
        Ok(Self(Lasting::start(session.exec(node, &itself()?, words), "ready")?))
    }

    /// Every change that it saw.
    pub fn end(self) -> Result<Vec<Taken>> {
        let text = String::from_utf8(self.0.end()?)?;
        let taken = |line: &str| {
            let (at_ns, bytes) = line.split_once(' ')?;
            Some(Taken { at_ns: at_ns.parse().ok()?, bytes: bytes.parse().ok()? })
        };
        Ok(text.lines().filter_map(taken).collect())
    }
}

fn meter(interval: Duration) -> Result<()> {
    let told = until_told();
    dtwn_sys::sched::set_timer_slack_ns(1)?;
    println!("ready");
    let mut changes: Vec<Taken> = Vec::new();
    while !told.load(Ordering::Relaxed) {
        let (before, bytes, after) = (now_ns(), taken_in()?, now_ns());
        if changes.last().is_none_or(|last| last.bytes != bytes) {
            changes.push(Taken { at_ns: before.midpoint(after), bytes });
        }
        thread::sleep(interval);
    }
    let mut out = io::BufWriter::new(io::stdout().lock());
    for Taken { at_ns, bytes } in changes {
        writeln!(out, "{at_ns} {bytes}")?;
    }
    Ok(out.flush()?)
}

/// Bytes that the node's air interface has received.
fn taken_in() -> Result<u64> {
    let text = fs::read_to_string("/proc/thread-self/net/dev")?;
    let line = text.lines().find_map(|line| line.trim_start().strip_prefix("air0:"));
    let bytes = line.and_then(|rest| rest.split_whitespace().next()).and_then(|bytes| bytes.parse().ok());
    bytes.ok_or_else(|| "the node has no air interface".into())
}

/// Receives any number of TCP streams at a node and throws them away.
pub struct TcpSink(Lasting);

/// Bytes received so far, by sender's address.
#[derive(Debug, serde::Serialize, serde::Deserialize)]
pub struct Received {
    /// When.
    pub at_ns: u64,
    /// Payload bytes of each.
    pub bytes: BTreeMap<String, u64>,
}

impl TcpSink {
    /// Starts it.
    pub fn start(session: &Session<'_>, node: &str) -> Result<Self> {
        Ok(Self(Lasting::start(session.exec(node, &itself()?, [TCP_SINK]), "ready")?))
    }

    /// What it has received by now.
    pub fn read(&mut self) -> Result<Received> {
        self.0.say("read\n")?;
        Ok(serde_json::from_str(&self.0.line()?)?)
    }
}

/// A command that sends one TCP stream without end, once its standard input has a line.
pub fn tcp_source(session: &Session<'_>, from: &str, to: &str) -> Result<Command> {
    Ok(session.exec(from, &itself()?, [TCP_SOURCE.to_owned(), format!("{to}:{PORT}")]))
}

fn send_stream(to: &str) -> Result<()> {
    io::stdin().read_line(&mut String::new())?;
    let mut stream = TcpStream::connect(to)?;
    let block = [0; 16 << 10];
    loop {
        stream.write_all(&block)?;
    }
}

/// One thread drains all streams every 5 ms: a thread for each, woken for every packet, would cost more than the medium.
fn tcp_sink() -> Result<()> {
    let listener = TcpListener::bind(("0.0.0.0", PORT))?;
    println!("ready");
    let received: Arc<Mutex<BTreeMap<SocketAddr, u64>>> = Arc::default();
    let counts = Arc::clone(&received);
    thread::spawn(move || {
        for line in io::stdin().lines() {
            let counts = counts.lock().unwrap_or_else(PoisonError::into_inner);
            let bytes = counts.iter().map(|(peer, bytes)| (peer.ip().to_string(), *bytes)).collect();
            let answer = serde_json::to_string(&Received { at_ns: now_ns(), bytes });
            match (line, answer) {
                (Ok(_), Ok(answer)) => println!("{answer}"),
                _ => break,
            }
        }
        std::process::exit(0);
    });
    listener.set_nonblocking(true)?;
    let mut streams: Vec<(SocketAddr, TcpStream)> = Vec::new();
    let mut buffer = vec![0; 1 << 18];
    loop {
        while let Ok((stream, peer)) = listener.accept() {
            stream.set_nonblocking(true)?;
            streams.push((peer, stream));
        }
        let mut counts = received.lock().unwrap_or_else(PoisonError::into_inner);
        for (peer, stream) in &mut streams {
            while let Ok(length) = stream.read(&mut buffer)
                && length > 0
            {
                *counts.entry(*peer).or_default() += length as u64;
            }
        }
        drop(counts);
        thread::sleep(Duration::from_millis(5));
    }
}
