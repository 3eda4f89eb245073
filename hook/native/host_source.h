// The store as Kea's host data source, so that Kea itself finds the reservations.
#ifndef LEASEHOLD_HOST_SOURCE_H
#define LEASEHOLD_HOST_SOURCE_H

namespace leasehold {

/// In load() and unload(): Kea then knows, or forgets, how to make a source of type `leasehold`.
void register_host_source();
void deregister_host_source();

/// In dhcp4_srv_configured: Kea has emptied its list of sources just before.
void add_host_source();

}  // namespace leasehold

#endif
