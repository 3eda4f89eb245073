// Kea as the rest of the hook sees it: its log, its statistics, its configuration and its lease database.
#ifndef LEASEHOLD_KEA_H
#define LEASEHOLD_KEA_H

#include <asiolink/io_service.h>
#include <dhcpsrv/cfgmgr.h>
#include <dhcpsrv/lease.h>

#include <cstdint>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <vector>

#include "leasehold.h"
#include "store.h"

namespace leasehold {

/// Kea changed these pointer types between 2.2 and 3.2, and any_cast wants them exactly.
using CurrentConfig = decltype(isc::dhcp::CfgMgr::instance().getCurrentCfg());
using StagingConfig = decltype(isc::dhcp::CfgMgr::instance().getStagingCfg());

/// Between load() and unload(): outside, log() and set_statistic() do nothing, since Kea may be past its exit.
void open_kea();
void close_kea();

/// Logs through `leasehold-hooks` as LEASEHOLD_`id`. Any thread.
void log(lh_log_level level, std::string_view id, std::string_view text);

/// Sets Kea's statistic `leasehold.name` on Kea's main thread, soon: Kea's statistics are not locked unless it is
/// multi-threaded. Any thread; nothing before the server is configured.
void set_statistic(const std::string& name, int64_t value);

/// Takes note of a configuration that is about to be in force: the subnets with Leasehold's mark, and lifetimes.
void read_configuration(const isc::asiolink::IOServicePtr& io_service, const StagingConfig& config,
                        const isc::data::ConstElementPtr& json);
/// The managed subnets that were in force when this was last asked and are no more, by the configuration that Kea runs:
/// one that it refused in the end changes nothing. Main thread.
std::vector<uint32_t> subnets_that_left();
std::vector<uint32_t> managed_subnets();
/// Whether this library is the last of those that are loaded.
bool is_last_library();
/// The managed subnet whose prefix has the address; of several any.
std::optional<uint32_t> managed_subnet_with(uint32_t address);
/// Seconds; of any subnet where the last configuration did not have this one.
uint32_t longest_lifetime_s(uint32_t subnet_id);

/// Whether the subnet carries Leasehold's mark: the key `leasehold` in its user-context.
template <typename SubnetPtr>
bool is_managed(const SubnetPtr& subnet) {
    const isc::data::ConstElementPtr context = subnet->getContext();
    return context && context->getType() == isc::data::Element::map && context->contains("leasehold");
}
/// The same for a subnet of the running configuration. Packet threads and the main thread.
bool is_managed(uint32_t subnet_id);

/// The 48-bit integer of an Ethernet address; kNoMac for any other hardware type or length (RFC 2131, section 2: htype,
/// hlen).
uint64_t mac_of(const isc::dhcp::HWAddrPtr& hwaddr);

/// Whether Kea's statistics have counted the leases: not yet in dhcp4_srv_configured, after which Kea counts them anew.
enum class Counted { kNo, kYes };

/// Deletes a lease from Kea's database as lease4-del does, statistics included.
void delete_lease(const isc::dhcp::Lease4Ptr& lease, Counted counted = Counted::kYes);

/// Deletes the lease that this MAC holds on this address of the subnet.
void delete_lease_of(uint32_t subnet_id, uint64_t mac, uint32_t address);

/// Deletes the leases of these MACs on the subnet, but for those on the address that is now reserved for the MAC.
void delete_leases_of(const Store& store, uint32_t subnet_id, const std::vector<uint64_t>& macs);

/// Deletes the lease that another MAC holds on an address reserved for `mac`. A declined address stays out of service
/// for Kea's probation period: somebody else uses it.
void delete_lease_in_the_way(uint32_t subnet_id, uint64_t mac, uint32_t address);

/// Deletes the leases that the store rules out on those of these subnets that are managed, and takes these out of the
/// set; looks at all leases, unless there are no such subnets.
void delete_leases_ruled_out(const Store& store, std::set<uint32_t>& subnet_ids, Counted counted);

/// The leases of this MAC on all subnets.
std::vector<isc::dhcp::Lease4Ptr> leases_of(uint64_t mac);
/// The lease on this address, whoever has it; nullptr without one.
isc::dhcp::Lease4Ptr lease_on(uint32_t address);

/// Whether there is a lease database to delete from: not before the server is configured, and not after it could not
/// be.
bool has_lease_database();

}  // namespace leasehold

#endif
