//! Network namespaces as test hosts: a bridge with pods on it, real kernel, real packets, gone with the test.

use std::fs::File;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::os::fd::{AsRawFd as _, RawFd};

use futures::TryStreamExt as _;
use nix::sched::{CloneFlags, setns, unshare};
use rtnetlink::packet_route::address::AddressHeaderFlags;
use rtnetlink::{Handle, LinkBridge, LinkUnspec, LinkVeth, RouteMessageBuilder, new_connection};

/// The bridge's own address: the pods' gateway, and an ordinary unmeshed host.
pub(crate) const GATEWAY: Ipv4Addr = Ipv4Addr::new(10, 9, 0, 1);
const PREFIX: u8 = 24;

/// A network namespace; it lives as long as this.
pub(crate) struct Host(File);

/// A bridge in a namespace of its own, which pods are attached to.
pub(crate) struct TestNet {
    pub(crate) gateway: Host,
}

impl Host {
    /// A new namespace with nothing but loopback.
    ///
    /// # Panics
    /// Without the right to make one: these tests are not skipped in silence.
    fn new() -> Self {
        let made = std::thread::spawn(|| {
            unshare(CloneFlags::CLONE_NEWNET)
                .expect("making a network namespace (these tests need root)");
            File::open("/proc/thread-self/ns/net").expect("the namespace just made")
        });
        let host = Self(made.join().expect("a namespace"));
        host.run(|| async {
            let handle = netlink();
            let lo = index(&handle, "lo").await;
            up(&handle, lo).await;
        });
        host
    }

    /// Runs `work` on a thread inside, with a runtime of its own, and waits for it.
    pub(crate) fn run<T, F>(&self, work: impl FnOnce() -> F + Send) -> T
    where
        F: Future<Output = T>,
        T: Send,
    {
        self.enter(|| {
            tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .expect("a runtime")
                .block_on(work())
        })
    }

    /// Runs `work` on a thread inside and waits for it. Threads and processes that it starts are inside as well.
    pub(crate) fn enter<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        std::thread::scope(|scope| {
            let inside = scope.spawn(|| {
                setns(&self.0, CloneFlags::CLONE_NEWNET).expect("entering a test namespace");
                work()
            });
            match inside.join() {
                Ok(value) => value,
                Err(panic) => std::panic::resume_unwind(panic),
            }
        })
    }

    fn descriptor(&self) -> RawFd {
        self.0.as_raw_fd()
    }
}

impl TestNet {
    pub(crate) fn new() -> Self {
        let gateway = Host::new();
        gateway.run(|| async {
            let handle = netlink();
            let bridge = LinkBridge::new("br0").build();
            handle.link().add(bridge).execute().await.expect("a bridge");
            let bridge = index(&handle, "br0").await;
            address(&handle, bridge, GATEWAY).await;
            up(&handle, bridge).await;
            address_ipv6(&handle, bridge, ipv6(1)).await;
        });
        Self { gateway }
    }

    /// A pod with `eth0` on the bridge; `number` is the last part of its address.
    pub(crate) fn pod(&self, number: u8) -> (Host, Ipv4Addr) {
        let pod = Host::new();
        let own = Ipv4Addr::new(10, 9, 0, number);
        let descriptor = pod.descriptor();
        self.gateway.run(move || async move {
            let handle = netlink();
            let (outside, inside) = (format!("veth{number}"), format!("pod{number}"));
            let pair = LinkVeth::new(&outside, &inside).build();
            handle.link().add(pair).execute().await.expect("a veth");
            let bridge = index(&handle, "br0").await;
            let outside = index(&handle, &outside).await;
            let join = LinkUnspec::new_with_index(outside)
                .controller(bridge)
                .up()
                .build();
            handle.link().set(join).execute().await.expect("join");
            let inside = index(&handle, &inside).await;
            let give = LinkUnspec::new_with_index(inside)
                .name("eth0")
                .setns_by_fd(descriptor)
                .build();
            handle.link().set(give).execute().await.expect("give");
        });
        pod.run(move || async move {
            let handle = netlink();
            let eth0 = index(&handle, "eth0").await;
            address(&handle, eth0, own).await;
            up(&handle, eth0).await;
            address_ipv6(&handle, eth0, ipv6(number)).await;
            let route = RouteMessageBuilder::<Ipv4Addr>::new()
                .gateway(GATEWAY)
                .build();
            handle.route().add(route).execute().await.expect("a route");
        });
        (pod, own)
    }
}

/// The IPv6 address of the pod with this number; the gateway is 1.
pub(crate) fn ipv6(number: u8) -> Ipv6Addr {
    Ipv6Addr::new(0xfd00, 9, 0, 0, 0, 0, 0, u16::from(number))
}

fn netlink() -> Handle {
    let (connection, handle, _) = new_connection().expect("netlink");
    tokio::spawn(connection);
    handle
}

async fn index(handle: &Handle, name: &str) -> u32 {
    let mut links = handle.link().get().match_name(name.to_owned()).execute();
    let link = links.try_next().await.expect("links").expect("the link");
    link.header.index
}

async fn up(handle: &Handle, index: u32) {
    let link = LinkUnspec::new_with_index(index).up().build();
    handle.link().set(link).execute().await.expect("up");
}

async fn address(handle: &Handle, index: u32, address: Ipv4Addr) {
    handle
        .address()
        .add(index, address.into(), PREFIX)
        .execute()
        .await
        .expect("an address");
}

/// In use at once: nobody else has it, so nobody is asked (`IFA_F_NODAD`).
async fn address_ipv6(handle: &Handle, index: u32, address: Ipv6Addr) {
    let mut request = handle.address().add(index, address.into(), 64);
    request.message_mut().header.flags = AddressHeaderFlags::Nodad;
    request.execute().await.expect("an IPv6 address");
}
