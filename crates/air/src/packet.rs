//! The little that the medium reads of a packet: its IPv4 addresses and the flow it belongs to.

/// What the medium needs to know of an IPv4 packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Header {
    /// Source address, host byte order.
    pub(crate) source: u32,
    /// Destination address, host byte order.
    pub(crate) destination: u32,
    /// Hash of the 5-tuple (of addresses and protocol only for a fragment, which may lack ports).
    pub(crate) flow: u32,
}

/// Why a packet has no [`Header`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NotRead {
    /// Another protocol, such as IPv6 neighbour discovery.
    NotIpv4,
    /// Says it is IPv4, but its header does not fit what was read.
    Malformed,
}

const TCP: u8 = 6;
const UDP: u8 = 17;
const SCTP: u8 = 132;
const UDP_LITE: u8 = 136;

fn be32(bytes: &[u8], at: usize) -> u32 {
    bytes.get(at..at + 4).map_or(0, |b| u32::from_be_bytes([b[0], b[1], b[2], b[3]]))
}

fn header_len(packet: &[u8]) -> usize {
    packet.first().map_or(0, |first| usize::from(first & 0x0f) * 4)
}

/// Reads an IPv4 header (RFC 791).
pub(crate) fn read(packet: &[u8]) -> Result<Header, NotRead> {
    match packet.first() {
        Some(first) if first >> 4 == 4 => {}
        Some(_) => return Err(NotRead::NotIpv4),
        None => return Err(NotRead::Malformed),
    }
    let header = header_len(packet);
    if packet.len() < 20 || header < 20 || packet.len() < header {
        return Err(NotRead::Malformed);
    }
    if usize::from(u16::from_be_bytes([packet[2], packet[3]])) != packet.len() {
        return Err(NotRead::Malformed);
    }
    let (source, destination, protocol) = (be32(packet, 12), be32(packet, 16), packet[9]);
    let fragment = u16::from_be_bytes([packet[6], packet[7]]) & 0x3fff != 0;
    let ports = match protocol {
        TCP | UDP | SCTP | UDP_LITE if !fragment => be32(packet, header),
        _ => 0,
    };
    Ok(Header { source, destination, flow: flow_hash(source, destination, protocol, ports) })
}

/// Mixes a 5-tuple so that the low bits depend on all of it (the finalizer of SplitMix64, Steele et al. 2014).
fn flow_hash(source: u32, destination: u32, protocol: u8, ports: u32) -> u32 {
    let addresses = u64::from(source) << 32 | u64::from(destination);
    let rest = u64::from(ports) << 8 | u64::from(protocol);
    let mut z = addresses.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ rest.wrapping_mul(0xd6e8_feb8_6659_fd93);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    (z >> 32) as u32
}

/// Number of bits that may be flipped: those behind the IP header.
pub(crate) fn payload_bits(packet: &[u8]) -> usize {
    packet.len().saturating_sub(header_len(packet)) * 8
}

/// Flips one bit behind the IP header; `bit` is below [`payload_bits`].
pub(crate) fn flip(packet: &mut [u8], bit: usize) {
    let at = header_len(packet) + bit / 8;
    if let Some(byte) = packet.get_mut(at) {
        *byte ^= 0x80 >> (bit % 8);
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// A UDP packet of `len` bytes in all.
    pub(crate) fn udp(source: u32, destination: u32, port: u16, len: usize) -> Vec<u8> {
        let mut packet = vec![0u8; len.max(28)];
        packet[0] = 0x45;
        let total = u16::try_from(packet.len()).unwrap().to_be_bytes();
        packet[2..4].copy_from_slice(&total);
        packet[8] = 64;
        packet[9] = UDP;
        packet[12..16].copy_from_slice(&source.to_be_bytes());
        packet[16..20].copy_from_slice(&destination.to_be_bytes());
        packet[20..22].copy_from_slice(&port.to_be_bytes());
        packet
    }

    #[test]
    fn reads_addresses_and_tells_flows_apart() {
        let a = read(&udp(0x0a00_0001, 0x0a00_0002, 1000, 100)).unwrap();
        assert_eq!((a.source, a.destination), (0x0a00_0001, 0x0a00_0002));
        let b = read(&udp(0x0a00_0001, 0x0a00_0002, 1001, 100)).unwrap();
        let again = read(&udp(0x0a00_0001, 0x0a00_0002, 1000, 900)).unwrap();
        assert_ne!(a.flow, b.flow);
        assert_eq!(a.flow, again.flow);
    }

    #[test]
    fn flow_hash_spreads_over_buckets() {
        let mut used = std::collections::HashSet::new();
        for port in 0..1024 {
            used.insert(flow_hash(0x0a00_0001, 0x0a00_0002, TCP, port << 16 | 5201) & 1023);
        }
        // Throwing 1024 balls into 1024 bins leaves 1/e of them empty on average: 647 used, deviation 10.
        assert!((600..700).contains(&used.len()), "{}", used.len());
    }

    #[test]
    fn fragments_share_a_flow_whatever_follows_the_header() {
        let mut first = udp(1, 2, 7, 60);
        first[6] = 0x20;
        let mut second = udp(1, 2, 9, 60);
        second[7] = 5;
        assert_eq!(read(&first).unwrap().flow, read(&second).unwrap().flow);
    }

    #[test]
    fn refuses_what_is_not_ipv4_or_broken() {
        let mut packet = udp(1, 2, 7, 60);
        assert_eq!(read(&packet[..59]), Err(NotRead::Malformed));
        assert_eq!(read(&packet[..10]), Err(NotRead::Malformed));
        assert_eq!(read(&[]), Err(NotRead::Malformed));
        packet[0] = 0x4f;
        assert_eq!(read(&packet[..40]), Err(NotRead::Malformed));
        packet[0] = 0x60;
        assert_eq!(read(&packet), Err(NotRead::NotIpv4));
    }

    #[test]
    fn flips_only_behind_the_header() {
        let whole = udp(1, 2, 7, 40);
        assert_eq!(payload_bits(&whole), 160);
        for bit in 0..160 {
            let mut packet = whole.clone();
            flip(&mut packet, bit);
            assert_eq!(packet[..20], whole[..20]);
            let changed: u32 = packet.iter().zip(&whole).map(|(a, b)| (a ^ b).count_ones()).sum();
            assert_eq!(changed, 1);
        }
    }
}
