#include "interfaces.h"

#include <net/if.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cc/data.h>
#include <dhcp/iface_mgr.h>
#include <dhcpsrv/cfg_subnets4.h>

#include <cerrno>
#include <set>
#include <system_error>
#include <vector>

#include "kea.h"

using isc::data::Element;
using isc::data::ElementPtr;

namespace leasehold {
namespace {

/// A socket to ask the kernel through. Source: netdevice(7).
class Kernel {
public:
    Kernel() : socket_(::socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0)) {
        if (socket_ < 0) {
            throw std::system_error(errno, std::generic_category(), "socket");
        }
    }
    ~Kernel() {
        ::close(socket_);
    }
    Kernel(const Kernel&) = delete;
    Kernel& operator=(const Kernel&) = delete;

    /// Not by getifaddrs(): a hypervisor has hundreds of interfaces without an address, of which that tells everything.
    std::set<std::string> with_ipv4_address() const {
        ifconf list{};
        ask(SIOCGIFCONF, &list);
        std::vector<ifreq> addresses(static_cast<size_t>(list.ifc_len) / sizeof(ifreq));
        list.ifc_req = addresses.data();
        ask(SIOCGIFCONF, &list);
        addresses.resize(static_cast<size_t>(list.ifc_len) / sizeof(ifreq));
        std::set<std::string> names;
        for (const ifreq& address : addresses) {
            const std::string label = address.ifr_name;  // "eth1", or "eth1:2"
            names.insert(label.substr(0, label.find(':')));
        }
        return names;
    }

    /// 0 for an interface that has gone meanwhile.
    unsigned flags(const std::string& name) const {
        ifreq request{};
        name.copy(request.ifr_name, IFNAMSIZ - 1);
        return ::ioctl(socket_, SIOCGIFFLAGS, &request) == 0 ? static_cast<unsigned short>(request.ifr_flags) : 0;
    }

private:
    void ask(unsigned long what, void* answer) const {
        if (::ioctl(socket_, what, answer) != 0) {
            throw std::system_error(errno, std::generic_category(), "ioctl");
        }
    }

    int socket_;
};

std::set<std::string> with_managed_subnet() {
    const CurrentConfig config = isc::dhcp::CfgMgr::instance().getCurrentCfg();
    std::set<std::string> names;
    for (const auto& subnet : *config->getCfgSubnets4()->getAll()) {
        if (is_managed(subnet)) {
            names.insert(subnet->getIface().get());
        }
    }
    return names;
}

// One that was deleted and made again has another index, and Kea's socket hears nothing of it.
bool is_listened_on(const std::string& name) {
    const auto known = isc::dhcp::IfaceMgr::instance().getIface(name);
    return known && !known->getSockets().empty() &&
           static_cast<unsigned>(known->getIndex()) == if_nametoindex(name.c_str());
}

}  // namespace

std::string describe_interfaces() {
    const Kernel kernel;
    const std::set<std::string> managed = with_managed_subnet();
    const ElementPtr told = Element::createMap();
    for (const std::string& name : kernel.with_ipv4_address()) {
        const unsigned flags = kernel.flags(name);
        if ((flags & IFF_LOOPBACK) != 0) {
            continue;
        }
        // IFF_RUNNING is the operational state, where "unknown" of drivers that do not tell counts as up; Kea goes by
        // it too. Source: Linux, Documentation/networking/operstates.rst.
        ElementPtr fault = Element::create();
        if ((flags & IFF_UP) == 0) {
            fault = Element::create("down");
        } else if ((flags & IFF_RUNNING) == 0) {
            fault = Element::create("no-link");
        } else if (managed.count(name) != 0 && !is_listened_on(name)) {
            fault = Element::create("no-socket");
        }
        told->set(name, fault);
    }
    return told->str();
}

}  // namespace leasehold
