//! Telling those who follow connections. Nothing but one look at the settings while nobody does.

use vnet_common::{
    Seconds,
    event::{ConnectionEvent, EventKind},
    flow::Connection,
};

use crate::tables::Tables;

/// Reports what happened to a connection at `now`; `last_seen` stands apart, as an ended one has lost its own.
#[inline(always)]
pub fn tell<T: Tables>(tables: &T, connection: &Connection, kind: EventKind, last_seen: Seconds, now: Seconds) {
    if tables.settings().is_some_and(|settings| settings.report_connections != 0) {
        write(tables, connection, kind as u32, last_seen, now);
    }
}

#[inline(never)]
fn write<T: Tables>(tables: &T, connection: &Connection, kind: u32, last_seen: Seconds, now: Seconds) {
    tables.report(&ConnectionEvent {
        original: connection.original,
        reply: connection.reply,
        original_network: connection.original_network,
        reply_network: connection.reply_network,
        protocol: connection.protocol,
        origin: connection.origin,
        guest_vport: connection.guest_vport,
        kind,
        seen: connection.seen.load(),
        created: connection.created.load(),
        last_seen,
        at: now,
        pad: 0,
    });
}

#[cfg(test)]
mod tests {
    use vnet_common::{Be16, Word, config::Settings, conntrack::protocol, flow::Endpoints, names::expiry::Mode};

    use crate::{
        datapath::expire::expire_connection,
        tables::{
            Tables as _,
            mock::MockTables,
            pairs::{self, Inserted},
        },
    };

    use super::*;

    const AGES: Seconds = 1_000_000;

    /// An unanswered UDP connection seen at 100, alone in its tables.
    fn tables(report_connections: u32) -> (MockTables, Inserted) {
        let tables = MockTables::default();
        tables.set_settings(Settings { report_connections, ..Settings::default() });
        let original = Endpoints { src: 1, dst: 2, src_port: Be16::new(3), dst_port: Be16::new(4) };
        let connection = Connection {
            original,
            reply: original.reversed(),
            original_network: 1,
            protocol: protocol::UDP,
            created: Word::new(90),
            last_seen: Word::new(100),
            ..Connection::default()
        };
        let inserted = pairs::insert(tables.connections(), &connection, 100);
        (tables, inserted)
    }

    #[test]
    fn an_end_is_told_with_its_reason() {
        let cases =
            [(Mode::Expired, EventKind::Expired), (Mode::Force, EventKind::Flushed), (Mode::Spare, EventKind::Spared)];
        for (mode, kind) in cases {
            let (tables, inserted) = tables(1);
            assert!(expire_connection(&tables, inserted.0, mode, AGES), "{mode:?}");
            let reports = tables.take_reports();
            let told: Vec<_> = reports
                .iter()
                .map(|event| (event.kind, event.original.src, event.created, event.last_seen, event.at))
                .collect();
            assert_eq!(told, [(kind as u32, 1, 90, 100, AGES)], "{mode:?}");
        }
    }

    #[test]
    fn nothing_is_told_while_nobody_follows() {
        let (tables, inserted) = tables(0);
        assert!(expire_connection(&tables, inserted.0, Mode::Force, AGES));
        assert!(tables.take_reports().is_empty());
    }
}
