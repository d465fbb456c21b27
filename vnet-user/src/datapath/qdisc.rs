//! The requests about clsact qdiscs that aya has no call for: whether it is one, which filters hang in it,
//! taking it away. Plain blocking netlink: one question, its answer.

use std::io;

use aya::programs::TcAttachType;
use rtnetlink::{
    packet_core::{NLM_F_ACK, NLM_F_DUMP, NLM_F_REQUEST, NetlinkBuffer, NetlinkHeader, NetlinkMessage, NetlinkPayload},
    packet_route::{
        RouteNetlinkMessage,
        tc::{TcAttribute, TcHandle, TcMessage},
    },
    sys::{Socket, SocketAddr, protocols::NETLINK_ROUTE},
};

/// The filters on one side of a device's clsact qdisc, by priority and handle.
pub(super) struct Filters(Vec<(u16, u32)>);

impl Filters {
    pub(super) fn of(ifindex: u32, side: TcAttachType) -> io::Result<Self> {
        let minor = match side {
            TcAttachType::Egress => TcHandle::MIN_EGRESS,
            _ => TcHandle::MIN_INGRESS,
        };
        let mut question = TcMessage::with_index(ifindex.cast_signed());
        question.header.parent = TcHandle { major: TcHandle::CLSACT.major, minor };
        let mut filters = Vec::new();
        ask(RouteNetlinkMessage::GetTrafficFilter(question), NLM_F_DUMP, |answer| {
            if let RouteNetlinkMessage::NewTrafficFilter(filter) = answer {
                // tcm_info: the priority, then the protocol. Handle 0 is the head of a priority's list.
                let (priority, handle) = ((filter.header.info >> 16) as u16, handle(filter.header.handle));
                if handle != 0 {
                    filters.push((priority, handle));
                }
            }
        })?;
        Ok(Self(filters))
    }

    pub(super) fn holds(&self, priority: u16, handle: u32) -> bool {
        self.0.contains(&(priority, handle))
    }

    /// True where any other filter is there.
    pub(super) fn holds_others(&self, priority: u16, handle: u32) -> bool {
        self.0.iter().any(|filter| *filter != (priority, handle))
    }
}

/// True where the qdisc in the place that clsact and ingress share is a clsact.
pub(super) fn is_clsact(ifindex: u32) -> io::Result<bool> {
    let mut found = false;
    let question = TcMessage::with_index(ifindex.cast_signed());
    ask(RouteNetlinkMessage::GetQueueDiscipline(question), NLM_F_DUMP, |answer| {
        if let RouteNetlinkMessage::NewQueueDiscipline(qdisc) = answer {
            // Older kernels answer for every device.
            found |= qdisc.header.index == ifindex.cast_signed()
                && qdisc
                    .attributes
                    .iter()
                    .any(|attribute| matches!(attribute, TcAttribute::Kind(kind) if kind == "clsact"));
        }
    })?;
    Ok(found)
}

/// Removes the device's clsact qdisc; none there is fine.
pub(super) fn delete_clsact(ifindex: u32) -> io::Result<()> {
    let mut request = TcMessage::with_index(ifindex.cast_signed());
    request.header.handle = TcHandle { major: TcHandle::CLSACT.major, minor: 0 };
    request.header.parent = TcHandle::CLSACT;
    match ask(RouteNetlinkMessage::DelQueueDiscipline(request), NLM_F_ACK, |_| {}) {
        Err(error) if matches!(error.raw_os_error(), Some(libc::ENOENT | libc::EINVAL | libc::ENODEV)) => Ok(()),
        result => result,
    }
}

fn handle(handle: TcHandle) -> u32 {
    u32::from(handle.major) << 16 | u32::from(handle.minor)
}

/// Sends one message and hands over the answers until the kernel says that it is done.
fn ask(message: RouteNetlinkMessage, flags: u16, mut visit: impl FnMut(RouteNetlinkMessage)) -> io::Result<()> {
    let mut socket = Socket::new(NETLINK_ROUTE)?;
    socket.bind_auto()?;
    socket.connect(&SocketAddr::new(0, 0))?;
    let mut header = NetlinkHeader::default();
    header.flags = NLM_F_REQUEST | flags;
    header.sequence_number = 1;
    let mut request = NetlinkMessage::new(header, NetlinkPayload::from(message));
    request.finalize();
    let mut bytes = vec![0; request.buffer_len()];
    request.serialize(&mut bytes);
    socket.send(&bytes, 0)?;
    loop {
        let (datagram, _) = socket.recv_from_full()?;
        let mut rest = datagram.as_slice();
        while !rest.is_empty() {
            let broken = |_| io::Error::from(io::ErrorKind::InvalidData);
            let length = NetlinkBuffer::new_checked(rest).map_err(broken)?.length() as usize;
            let answer = NetlinkMessage::<RouteNetlinkMessage>::deserialize(rest).map_err(broken)?;
            match answer.payload {
                NetlinkPayload::Done(_) => return Ok(()),
                NetlinkPayload::Error(error) if error.code.is_none() => return Ok(()),
                NetlinkPayload::Error(error) => return Err(error.to_io()),
                NetlinkPayload::InnerMessage(answer) => visit(answer),
                _ => {}
            }
            rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
        }
    }
}
