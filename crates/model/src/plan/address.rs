//! Who has which IPv4 address.
//!
//! | block | holds |
//! | --- | --- |
//! | `10.0.0.1` | the MBS |
//! | `10.0.1.B` | BS number B, from 1 |
//! | `10.64.0.0/17` | user u, from 0, at `10.64.0.0 + u`; what ends in `.0` or `.255` is an address like any other here |
//! | `10.128.0.0/9` | aliases: `10.128.0.0 + u·256 + B` is BS B as user u calls it, B = 0 the MBS |
//!
//! A group's namespace holds many users, and the kernel would send everything from the same one of their addresses. So a
//! user calls its BS by an alias of its own: one route a user, `10.128.0.0 + u·256 / 24 … src 10.64.0.0 + u`, then picks
//! the sender for every program without its knowing. Each BS and the MBS take the whole alias block as local
//! (`ip route add local 10.128.0.0/9 dev lo`).

use crate::ids::{BsId, UserId};
use std::net::Ipv4Addr;

/// The alias block, as the address and prefix length of its route.
pub const ALIAS_BLOCK: (Ipv4Addr, u8) = (Ipv4Addr::new(10, 128, 0, 0), 9);
/// The whole network: every node routes it into its TUN.
pub const NETWORK: (Ipv4Addr, u8) = (Ipv4Addr::new(10, 0, 0, 0), 8);

/// Matches the IPv4 addresses `a` (host byte order) with `a & mask == value`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct AddressMatch {
    /// The bits that are compared.
    pub mask: u32,
    /// What they must be; has no bit outside `mask`.
    pub value: u32,
}

impl AddressMatch {
    /// Exactly one address.
    pub fn host(address: Ipv4Addr) -> Self {
        Self { mask: u32::MAX, value: u32::from(address) }
    }

    /// Whether an address is among them.
    pub fn matches(self, address: Ipv4Addr) -> bool {
        u32::from(address) & self.mask == self.value
    }
}

/// The MBS's own address.
pub fn mbs() -> Ipv4Addr {
    Ipv4Addr::new(10, 0, 0, 1)
}

/// A BS's own address. Only for [`BS_MAX`](crate::topology::BS_MAX) BSs, as every plan has checked.
pub fn bs(bs: BsId) -> Ipv4Addr {
    offset(Ipv4Addr::new(10, 0, 1, 1), bs.0)
}

/// A user's address. Only for [`USERS_MAX`](crate::topology::USERS_MAX) users, as every plan has checked.
pub fn user(user: UserId) -> Ipv4Addr {
    offset(Ipv4Addr::new(10, 64, 0, 0), user.0)
}

/// A BS's address as a user calls it; `None` for the MBS's.
pub fn alias(user: UserId, bs: Option<BsId>) -> Ipv4Addr {
    offset(alias_route(user).0, alias_low(bs))
}

/// Destination and prefix length of a user's route to its aliases.
pub fn alias_route(user: UserId) -> (Ipv4Addr, u8) {
    (offset(ALIAS_BLOCK.0, user.0 << 8), 24)
}

/// All aliases of a BS, or of the MBS for `None`: the block's bits and the low byte.
pub(super) fn alias_match(bs: Option<BsId>) -> AddressMatch {
    AddressMatch { mask: 0xff80_00ff, value: u32::from(ALIAS_BLOCK.0) | alias_low(bs) }
}

fn alias_low(bs: Option<BsId>) -> u32 {
    bs.map_or(0, |bs| bs.0 + 1)
}

fn offset(base: Ipv4Addr, by: u32) -> Ipv4Addr {
    Ipv4Addr::from(u32::from(base) + by)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::topology::{BS_MAX, USERS_MAX};

    #[test]
    fn blocks_do_not_meet() {
        let last_bs = BsId::at(BS_MAX - 1);
        let last_user = UserId::at(USERS_MAX - 1);
        assert_eq!(bs(BsId(0)), Ipv4Addr::new(10, 0, 1, 1));
        assert_eq!(bs(last_bs), Ipv4Addr::new(10, 0, 1, 254));
        assert_eq!(user(UserId(19)), Ipv4Addr::new(10, 64, 0, 19));
        assert_eq!(user(last_user), Ipv4Addr::new(10, 64, 127, 255));
        assert_eq!(alias(UserId(0), None), Ipv4Addr::new(10, 128, 0, 0));
        assert_eq!(alias(UserId(2), Some(BsId(1))), Ipv4Addr::new(10, 128, 2, 2));
        assert_eq!(alias(last_user, Some(last_bs)), Ipv4Addr::new(10, 255, 255, 254));
        assert_eq!(alias_route(UserId(300)), (Ipv4Addr::new(10, 129, 44, 0), 24));
    }

    #[test]
    fn a_match_takes_its_own_aliases_from_all_users_and_no_others() {
        let mine = alias_match(Some(BsId(4)));
        for u in [0, 1, 255, 256, 32_767] {
            assert!(mine.matches(alias(UserId(u), Some(BsId(4)))));
            assert!(!mine.matches(alias(UserId(u), Some(BsId(5)))));
            assert!(!mine.matches(alias(UserId(u), None)));
            assert!(!mine.matches(user(UserId(u))));
        }
        assert!(!mine.matches(bs(BsId(4))));
    }
}
