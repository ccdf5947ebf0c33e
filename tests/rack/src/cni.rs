//! The masquerade of CNIs as their programs write it, with the marks that they set on the way: what a test beside kube-proxy competes with.

use crate::rack::Rack;
use crate::site::Node;

/// Whose rules a node has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cni {
    /// By iptables.
    Flannel,
    /// Felix with the data plane of nftables.
    Calico,
}

/// What flannel writes on a node whose pods have `SUBNET`.
const FLANNEL: &str = "*nat
:FLANNEL-POSTRTG - [0:0]
-A POSTROUTING -m comment --comment \"flanneld masq\" -j FLANNEL-POSTRTG
-A FLANNEL-POSTRTG -m mark --mark 0x4000/0x4000 -m comment --comment \"flanneld masq\" -j RETURN
-A FLANNEL-POSTRTG -s SUBNET -d 10.244.0.0/16 -m comment --comment \"flanneld masq\" -j RETURN
-A FLANNEL-POSTRTG -s 10.244.0.0/16 -d SUBNET -m comment --comment \"flanneld masq\" -j RETURN
-A FLANNEL-POSTRTG ! -s 10.244.0.0/16 -d SUBNET -m comment --comment \"flanneld masq\" -j RETURN
-A FLANNEL-POSTRTG -s 10.244.0.0/16 ! -d 224.0.0.0/4 -m comment --comment \"flanneld masq\" -j MASQUERADE --random-fully
-A FLANNEL-POSTRTG ! -s 10.244.0.0/16 -d 10.244.0.0/16 -m comment --comment \"flanneld masq\" -j MASQUERADE --random-fully
COMMIT
*filter
:FLANNEL-FWD - [0:0]
-A FORWARD -m comment --comment \"flanneld forward\" -j FLANNEL-FWD
-A FLANNEL-FWD -s 10.244.0.0/16 -m comment --comment \"flanneld forward\" -j ACCEPT
-A FLANNEL-FWD -d 10.244.0.0/16 -m comment --comment \"flanneld forward\" -j ACCEPT
COMMIT
";

/// What Felix writes: it takes its mark bits from the lowest of 0xffff0000, and clears them where packets come in.
const CALICO: &str = "table ip calico {
  set cali40all-ipam-pools { type ipv4_addr; flags interval; elements = { 10.244.0.0/16 } }
  set cali40masq-ipam-pools { type ipv4_addr; flags interval; elements = { 10.244.0.0/16 } }
  chain raw-cali-PREROUTING { meta mark set meta mark & 0xfff0ffff counter; }
  chain raw-PREROUTING { type filter hook prerouting priority raw; policy accept; counter jump raw-cali-PREROUTING; }
  chain mangle-cali-PREROUTING {
    ct state established,related counter accept
    meta mark & 0x00010000 == 0x00010000 counter accept
  }
  chain mangle-PREROUTING { type filter hook prerouting priority mangle; policy accept; counter jump mangle-cali-PREROUTING; }
  chain filter-cali-FORWARD { meta mark set meta mark & 0xfff1ffff counter; }
  chain filter-FORWARD {
    type filter hook forward priority filter; policy accept;
    counter jump filter-cali-FORWARD
    meta mark & 0x00010000 == 0x00010000 counter accept
    meta mark set meta mark | 0x00010000 counter
  }
  chain nat-cali-nat-outgoing {
    ip saddr @cali40masq-ipam-pools ip daddr != @cali40all-ipam-pools counter masquerade fully-random
  }
  chain nat-cali-POSTROUTING { counter jump nat-cali-nat-outgoing; }
  chain nat-POSTROUTING { type nat hook postrouting priority srcnat; policy accept; counter jump nat-cali-POSTROUTING; }
}
";

impl Cni {
    /// Gives the node these rules.
    #[track_caller]
    pub fn install(self, rack: &Rack, node: &Node) {
        let name = format!("{}.cni", node.name());
        match self {
            Cni::Flannel => {
                let file = rack.write(&name, &FLANNEL.replace("SUBNET", &node.pod_ranges()[0]));
                node.sh(&format!("iptables-restore --noflush {}", file.display()));
            }
            Cni::Calico => {
                let file = rack.write(&name, CALICO);
                node.sh(&format!("nft -f {}", file.display()));
            }
        }
    }
}
