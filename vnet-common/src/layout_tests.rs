//! Pins every layout: a failure here means that [`crate::ABI_VERSION`] must change.

use core::mem::{align_of, size_of};

use crate::{
    config::*, event::*, fdb::*, flow::*, forward::*, fragment::*, index::*, names::expiry, nat::*, socket::*,
    stats::*, vport::*,
};

#[test]
fn layouts_are_those_of_this_abi_version() {
    macro_rules! layouts {
        ($($type:ty => $size:expr, $align:expr;)*) => {
            $(assert_eq!((size_of::<$type>(), align_of::<$type>()), ($size, $align), stringify!($type));)*
        };
    }
    layouts! {
        VportEntry => 32, 4;
        FloodList => 4 + 4 * 1024, 4;
        LocalEntry => 4, 4;
        Subnet => 20, 4;
        NatPolicy => 52, 4;
        NetworkEntry => 192, 4;
        Settings => 48, 8;
        SubnetKey => 20, 4;
        FdbKey => 12, 2;
        FdbEntry => 16, 4;
        ForwardKey => 20, 4;
        ForwardEntry => 24, 4;
        Endpoint => 20, 4;
        Detours => 324, 4;
        Bucket => 64, 8;
        Pool => 16, 4;
        Endpoints => 12, 4;
        FlowKey => 16, 4;
        PathEntry => 24, 4;
        Connection => 64, 8;
        BindingKey => 20, 4;
        Binding => 56, 4;
        GuestUse => 40, 4;
        FragmentKey => 16, 4;
        FragmentEntry => 24, 4;
        HeldKey => 20, 4;
        HeldFragment => 12 + 2048, 4;
        ConnectionEvent => 56, 4;
        VportStats => 32 + 64 * 8, 8;
        expiry::Header => 16, 4;
    }
}
