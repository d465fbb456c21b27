//! Ageing: learned addresses go, others stay.

use vnet_common::{
    fdb::{FdbEntry, FdbKey, FdbKind},
    names::expiry::Mode,
};
use vnet_ebpf::{datapath::expire::expire_fdb, tables::Tables as _};

use crate::{packets::udp, world::*};

#[test]
fn learned_addresses_age_and_others_stay() {
    for (kind, stays) in [(FdbKind::Learned, false), (FdbKind::Static, true), (FdbKind::Local, true)] {
        let world = World::new();
        let key = FdbKey::new(NAT, 0, mac(GUEST1));
        world.learn(GUEST1, mac(GUEST1), kind);
        world.wait(299);
        assert!(!expire_fdb(&world.tables, &key, Mode::Expired, world.now()), "{kind:?}: a second before");
        world.wait(1);
        let stamp = world.fdb(NAT, 0, mac(GUEST1)).unwrap().last_seen.load();
        assert_eq!(stamp, START);
        assert_eq!(expire_fdb(&world.tables, &key, Mode::Expired, world.now()), !stays, "{kind:?}");
        assert_eq!(world.fdb(NAT, 0, mac(GUEST1)).is_some(), stays, "{kind:?}");
        assert_eq!(expire_fdb(&world.tables, &key, Mode::Force, world.now()), stays, "{kind:?} by force");
    }
}

#[test]
fn an_address_that_woke_up_stays() {
    let world = World::new();
    let key = FdbKey::new(NAT, 0, mac(GUEST1));
    world.wait(300);
    world.tc(GUEST1, udp(GUEST1, 9).bytes());
    assert!(!expire_fdb(&world.tables, &key, Mode::Expired, world.now()));
    world.tables.fdb().put(key, FdbEntry::new(GUEST1, FdbKind::Learned, world.now() + 1));
    assert!(!expire_fdb(&world.tables, &key, Mode::Expired, world.now()), "another CPU's later tick");
}

#[test]
fn an_address_that_is_not_there_is_not_deleted() {
    let world = World::new();
    let before = world.tables();
    assert!(!expire_fdb(&world.tables, &FdbKey::new(NAT, 9, mac(GUEST1)), Mode::Force, world.now()), "another VLAN");
    assert!(!expire_fdb(&world.tables, &FdbKey::new(NAT, 0, ROUTER_MAC), Mode::Force, world.now()));
    assert_eq!(world.tables(), before);
}
