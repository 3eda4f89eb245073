#include "host_source.h"

#include <boost/make_shared.hpp>

#include <dhcpsrv/base_host_data_source.h>
#include <dhcpsrv/host.h>
#include <dhcpsrv/host_data_source_factory.h>
#include <dhcpsrv/host_mgr.h>
#include <dhcpsrv/subnet_id.h>

#include <array>
#include <atomic>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "state.h"

using isc::asiolink::IOAddress;
using isc::dhcp::BaseHostDataSource;
using isc::dhcp::ConstHostCollection;
using isc::dhcp::ConstHostPtr;
using isc::dhcp::Host;
using isc::dhcp::HostDataSourceFactory;
using isc::dhcp::HostMgr;
using isc::dhcp::HostPageSize;
using isc::dhcp::HostPtr;
using isc::dhcp::SubnetID;

namespace leasehold {
namespace {

constexpr char kType[] = "leasehold";

std::array<uint8_t, 6> octets_of(uint64_t mac) {
    std::array<uint8_t, 6> octets{};
    for (size_t i = 0; i < octets.size(); ++i) {
        octets[i] = static_cast<uint8_t>(mac >> (40 - 8 * i));
    }
    return octets;
}

// A reservation without a number of its own is known to Kea's paging by its position, counted from 1.
HostPtr make_host(SubnetID subnet_id, const Reservation& reservation) {
    const auto octets = octets_of(reservation.mac);
    return boost::make_shared<Host>(octets.data(), octets.size(), Host::IDENT_HWADDR, subnet_id,
                                    isc::dhcp::SUBNET_ID_UNUSED, IOAddress(reservation.address), reservation.hostname);
}

// For a packet. Kea asks twice for a REQUEST, by MAC and by address; the second time gets the first one's host. And as
// making one costs more than all else here, the next packet of this thread gets the same one with other contents, where
// Kea has let go of it by then.
ConstHostPtr host_for_packet(SubnetID subnet_id, const std::optional<Reservation>& reservation) {
    thread_local struct {
        SubnetID subnet_id;
        Reservation reservation;
        HostPtr host;
    } last{};
    if (!reservation) {
        return {};
    }
    if (last.host && last.subnet_id == subnet_id && !(last.reservation != *reservation)) {
        return last.host;
    }
    HostPtr host = std::move(last.host);
    if (host && host.unique()) {
        // Whoever had it last may have been another thread: what it did with it came before.
        std::atomic_thread_fence(std::memory_order_acquire);
        const auto octets = octets_of(reservation->mac);
        host->setIdentifier(octets.data(), octets.size(), Host::IDENT_HWADDR);
        host->setIPv4SubnetID(subnet_id);
        host->setIPv4Reservation(IOAddress(reservation->address));
        host->setHostname(reservation->hostname);
    } else {
        host = make_host(subnet_id, *reservation);
    }
    last = {subnet_id, *reservation, host};
    return host;
}

std::optional<uint64_t> mac_in(const Host::IdentifierType& type, const uint8_t* begin, size_t length) {
    if (type != Host::IDENT_HWADDR || length != 6) {
        return std::nullopt;
    }
    uint64_t mac = 0;
    for (size_t i = 0; i < length; ++i) {
        mac = mac << 8 | begin[i];
    }
    return mac;
}

template <typename Wanted>
void collect(ConstHostCollection& hosts, SubnetID subnet_id, const Wanted& wanted) {
    constexpr size_t kPage = 1024;
    std::vector<Reservation> page;
    for (size_t position = 0; position == 0 || page.size() == kPage; position += kPage) {
        page = state().store.page(subnet_id, position, kPage);
        for (const Reservation& reservation : page) {
            if (wanted(reservation)) {
                hosts.push_back(make_host(subnet_id, reservation));
            }
        }
    }
}

template <typename Wanted>
ConstHostCollection collect(const Wanted& wanted) {
    ConstHostCollection hosts;
    for (const uint32_t subnet_id : state().store.subnets()) {
        collect(hosts, subnet_id, wanted);
    }
    return hosts;
}

// Functions without `override` joined the interface after Kea 2.2, or left it before 3.2.
class HostSource : public BaseHostDataSource {
public:
    ConstHostPtr get4(const SubnetID& subnet_id, const Host::IdentifierType& type, const uint8_t* begin,
                      const size_t length) const override {
        const auto mac = mac_in(type, begin, length);
        return mac ? host_for_packet(subnet_id, state().store.by_mac(subnet_id, *mac)) : ConstHostPtr();
    }

    ConstHostPtr get4(const SubnetID& subnet_id, const IOAddress& address) const override {
        return host_for_packet(subnet_id, state().store.by_address(subnet_id, address.toUint32()));
    }

    ConstHostCollection getAll4(const SubnetID& subnet_id, const IOAddress& address) const override {
        const ConstHostPtr host = get4(subnet_id, address);
        return host ? ConstHostCollection{host} : ConstHostCollection();
    }

    ConstHostCollection getAll4(const IOAddress& address) const override {
        ConstHostCollection hosts;
        for (const uint32_t subnet_id : state().store.subnets()) {
            if (const ConstHostPtr host = get4(subnet_id, address)) {
                hosts.push_back(host);
            }
        }
        return hosts;
    }

    ConstHostCollection getAll4(const SubnetID& subnet_id) const override {
        ConstHostCollection hosts;
        collect(hosts, subnet_id, [](const Reservation&) { return true; });
        return hosts;
    }

    ConstHostCollection getAll(const Host::IdentifierType& type, const uint8_t* begin,
                               const size_t length) const override {
        ConstHostCollection hosts;
        for (const uint32_t subnet_id : state().store.subnets()) {
            if (const ConstHostPtr host = get4(subnet_id, type, begin, length)) {
                hosts.push_back(host);
            }
        }
        return hosts;
    }

    ConstHostCollection getAllbyHostname(const std::string& hostname) const override {
        return collect([&](const Reservation& reservation) { return reservation.hostname == hostname; });
    }

    ConstHostCollection getAllbyHostname4(const std::string& hostname, const SubnetID& subnet_id) const override {
        ConstHostCollection hosts;
        collect(hosts, subnet_id, [&](const Reservation& reservation) { return reservation.hostname == hostname; });
        return hosts;
    }

    ConstHostCollection getPage4(const SubnetID& subnet_id, size_t&, uint64_t lower_host_id,
                                 const HostPageSize& page_size) const override {
        ConstHostCollection hosts;
        uint64_t id = lower_host_id;
        for (const Reservation& reservation : state().store.page(subnet_id, lower_host_id, page_size.page_size_)) {
            const HostPtr host = make_host(subnet_id, reservation);
            host->setHostId(++id);
            hosts.push_back(host);
        }
        return hosts;
    }

    ConstHostCollection getPage4(size_t&, uint64_t lower_host_id, const HostPageSize& page_size) const override {
        // The subnets one after another, as if they were one list.
        ConstHostCollection hosts;
        uint64_t skip = lower_host_id;
        uint64_t id = lower_host_id;
        for (const uint32_t subnet_id : state().store.subnets()) {
            const size_t wanted = page_size.page_size_ - hosts.size();
            const size_t count = state().store.size(subnet_id);
            for (const Reservation& reservation : state().store.page(subnet_id, skip, wanted)) {
                const HostPtr host = make_host(subnet_id, reservation);
                host->setHostId(++id);
                hosts.push_back(host);
            }
            skip = skip > count ? skip - count : 0;
        }
        return hosts;
    }

    ConstHostCollection getAll6(const SubnetID&) const override {
        return {};
    }
    ConstHostCollection getAll6(const SubnetID&, const IOAddress&) const override {
        return {};
    }
    virtual ConstHostCollection getAll6(const IOAddress&) const {
        return {};
    }
    ConstHostCollection getAllbyHostname6(const std::string&, const SubnetID&) const override {
        return {};
    }
    ConstHostCollection getPage6(const SubnetID&, size_t&, uint64_t, const HostPageSize&) const override {
        return {};
    }
    ConstHostCollection getPage6(size_t&, uint64_t, const HostPageSize&) const override {
        return {};
    }
    ConstHostPtr get6(const SubnetID&, const Host::IdentifierType&, const uint8_t*, const size_t) const override {
        return {};
    }
    ConstHostPtr get6(const IOAddress&, const uint8_t) const override {
        return {};
    }
    ConstHostPtr get6(const SubnetID&, const IOAddress&) const override {
        return {};
    }

    // Changes come through the journal, so that they survive a restart: by our own commands, never by this door.
    void add(const HostPtr&) override {
        refuse();
    }
    virtual void update(const HostPtr&) {
        refuse();
    }
    bool del(const SubnetID&, const IOAddress&) override {
        refuse();
    }
    bool del4(const SubnetID&, const Host::IdentifierType&, const uint8_t*, const size_t) override {
        refuse();
    }
    bool del6(const SubnetID&, const Host::IdentifierType&, const uint8_t*, const size_t) override {
        refuse();
    }

    std::string getType() const override {
        return kType;
    }

    /// An address has one reservation in a subnet here, which answers both kinds of look-up.
    bool setIPReservationsUnique(const bool) override {
        return true;
    }

private:
    [[noreturn]] static void refuse() {
        isc_throw(isc::NotImplemented, "reservations of the leasehold library change by its own commands only");
    }
};

}  // namespace

void register_host_source() {
    HostDataSourceFactory::registerFactory(
        kType, [](const isc::db::DatabaseConnection::ParameterMap&) { return boost::make_shared<HostSource>(); });
}

void deregister_host_source() {
    HostDataSourceFactory::deregisterFactory(kType);
}

void add_host_source() {
    HostMgr::instance();  // addBackend() aborts the server where there is no manager yet
    HostMgr::delBackend(kType);
    HostMgr::addBackend(std::string("type=") + kType);
}

}  // namespace leasehold
