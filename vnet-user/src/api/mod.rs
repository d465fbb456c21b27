//! HTTP and JSON over the daemon's Unix socket.
//!
//! | method | path | what |
//! | --- | --- | --- |
//! | GET | /v1/version | who answers |
//! | GET, POST | /v1/networks | list, add |
//! | GET, PATCH, DELETE | /v1/networks/NAME | show, change settings (`{"udp_timeout": "5m", "filtering": null}`), delete |
//! | GET | /v1/show | every network in full |
//! | GET | /v1/ports?network= | list |
//! | GET | /v1/ports/DEVICE | show |
//! | POST | /v1/networks/NAME/ports | add |
//! | DELETE | /v1/networks/NAME/ports/DEVICE | delete |
//! | GET | /v1/forwards?network= | list |
//! | POST | /v1/networks/NAME/forwards | add |
//! | DELETE | /v1/networks/NAME/forwards/PROTOCOL/LISTEN | delete |
//! | GET, POST, DELETE | /v1/networks/NAME/fdb | list, add, flush |
//! | DELETE | /v1/networks/NAME/fdb/MAC?vlan= | delete |
//! | GET, DELETE | /v1/connections?network=&proto=&src=&dst= | list, end |
//! | GET | /v1/connections/count?… | count |
//! | GET | /v1/stats | totals |
//!
//! An error is `{"error": "one line"}` with 400 (bad words), 404 (no such thing), 409 (taken) or 500.

pub mod client;
pub mod server;
pub mod types;
