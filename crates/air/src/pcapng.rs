//! Writes pcapng (draft-ietf-opsawg-pcapng): one section, nanosecond timestamps, raw IP packets.

use std::io::{self, Write};

const SECTION_HEADER: u32 = 0x0a0d_0d0a;
const INTERFACE_DESCRIPTION: u32 = 1;
const ENHANCED_PACKET: u32 = 6;

const BYTE_ORDER_MAGIC: u32 = 0x1a2b_3c4d;
/// LINKTYPE_RAW: the packet begins with its IP header.
const LINKTYPE_RAW: u16 = 101;

const OPT_END: u16 = 0;
const OPT_COMMENT: u16 = 1;
const SHB_USER_APPLICATION: u16 = 4;
const IF_NAME: u16 = 2;
const IF_TSRESOL: u16 = 9;
const EPB_FLAGS: u16 = 2;

/// Which way a packet passed its interface, as the flags of an enhanced packet block encode it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Direction {
    Unknown = 0,
    Inbound = 1,
    Outbound = 2,
}

/// A pcapng file being written.
pub(crate) struct PcapNg<W> {
    out: W,
    block: Vec<u8>,
}

impl<W: Write> PcapNg<W> {
    /// Writes the section header and one interface for each name; packets name interfaces by index.
    pub(crate) fn new<'a>(out: W, interfaces: impl IntoIterator<Item = &'a str>) -> io::Result<Self> {
        let mut file = Self { out, block: Vec::with_capacity(2048) };
        file.begin(SECTION_HEADER);
        file.put(&BYTE_ORDER_MAGIC.to_le_bytes());
        file.put(&1u16.to_le_bytes());
        file.put(&0u16.to_le_bytes());
        // The section's length is not known ahead.
        file.put(&u64::MAX.to_le_bytes());
        file.option(SHB_USER_APPLICATION, concat!("dtwn ", env!("CARGO_PKG_VERSION")).as_bytes());
        file.option(OPT_END, &[]);
        file.end()?;
        for name in interfaces {
            file.begin(INTERFACE_DESCRIPTION);
            file.put(&LINKTYPE_RAW.to_le_bytes());
            file.put(&[0; 2]);
            // No limit on captured lengths.
            file.put(&0u32.to_le_bytes());
            file.option(IF_NAME, name.as_bytes());
            // 10^-9 s.
            file.option(IF_TSRESOL, &[9]);
            file.option(OPT_END, &[]);
            file.end()?;
        }
        Ok(file)
    }

    /// Writes one whole packet, seen at `time_ns` since 1970 on an interface.
    pub(crate) fn packet(
        &mut self,
        interface: u32,
        time_ns: u64,
        direction: Direction,
        bytes: &[u8],
        comment: Option<&str>,
    ) -> io::Result<()> {
        let len = bytes.len() as u32;
        self.begin(ENHANCED_PACKET);
        self.put(&interface.to_le_bytes());
        self.put(&((time_ns >> 32) as u32).to_le_bytes());
        self.put(&(time_ns as u32).to_le_bytes());
        self.put(&len.to_le_bytes());
        self.put(&len.to_le_bytes());
        self.put(bytes);
        self.pad();
        if direction != Direction::Unknown {
            self.option(EPB_FLAGS, &(direction as u32).to_le_bytes());
        }
        if let Some(comment) = comment {
            self.option(OPT_COMMENT, comment.as_bytes());
        }
        self.option(OPT_END, &[]);
        self.end()
    }

    pub(crate) fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }

    /// Flushes and gives back what was written to.
    pub(crate) fn finish(mut self) -> io::Result<W> {
        self.out.flush()?;
        Ok(self.out)
    }

    fn begin(&mut self, kind: u32) {
        self.block.clear();
        self.put(&kind.to_le_bytes());
        self.put(&[0; 4]);
    }

    fn put(&mut self, bytes: &[u8]) {
        self.block.extend_from_slice(bytes);
    }

    fn pad(&mut self) {
        self.block.resize(self.block.len().next_multiple_of(4), 0);
    }

    /// A value longer than a length field can say is cut.
    fn option(&mut self, code: u16, value: &[u8]) {
        let value = &value[..value.len().min(usize::from(u16::MAX))];
        self.put(&code.to_le_bytes());
        self.put(&(value.len() as u16).to_le_bytes());
        self.put(value);
        self.pad();
    }

    /// Fills in the block's length, before and after its body, and writes it.
    fn end(&mut self) -> io::Result<()> {
        let len = (self.block.len() + 4) as u32;
        self.block[4..8].copy_from_slice(&len.to_le_bytes());
        self.put(&len.to_le_bytes());
        self.out.write_all(&self.block)
    }
}
