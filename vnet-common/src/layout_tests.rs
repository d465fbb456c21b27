//! Pins every layout: a failure here means that [`crate::ABI_VERSION`] must change.

use core::mem::{align_of, size_of};

use crate::{config::*, fdb::*, flow::*, forward::*, names::expiry, nat::*, stats::*, vport::*};

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
        Settings => 16, 4;
        SubnetKey => 20, 4;
        FdbKey => 12, 2;
        FdbEntry => 16, 4;
        ForwardKey => 20, 4;
        ForwardEntry => 20, 4;
        FlowKey => 44, 4;
        Path => 24, 4;
        FlowEntry => 84, 4;
        BindingKey => 24, 4;
        BindingEntry => 32, 4;
        VportStats => 32 + 64 * 8, 8;
        expiry::Header => 16, 4;
    }
}
