/* Everything that crosses between the C++ that touches Kea and the Python that runs inside it.
 *
 * Plain C, read by g++ and, from the line "cffi: begin" to the line "cffi: end", by cffi.
 * Rules of the border: times are milliseconds since the Unix epoch, UTC; a MAC is the 48-bit integer of its six
 * octets in network order; an IPv4 address is the 32-bit integer in host order. No function of the first part takes
 * the GIL or needs it; all are thread-safe. Every function of the second part is called on Kea's main thread only.
 */
#ifndef LEASEHOLD_H
#define LEASEHOLD_H
#include <stddef.h>
#include <stdint.h>
#ifdef __cplusplus
extern "C" {
#endif
/* cffi: begin */

/* ---- Implemented in C++, called by Python -------------------------------------------------------------------- */

enum lh_unknown_clients { LH_REJECT, LH_DROP, LH_NAK, LH_ALLOW };
enum lh_log_level { LH_DEBUG, LH_INFO, LH_WARN, LH_ERROR };

typedef struct {
    int unknown_clients;      /* enum lh_unknown_clients */
    uint32_t event_queue;     /* records that the event queue holds; more are counted as lost */
    uint32_t rejection_table; /* (subnet, MAC) pairs counted apart in one window; the rest are summed per subnet */
} lh_options;

/* One reservation. `hostname` is UTF-8, `hostname_length` octets at `hostname_offset` of the names blob; 0 is none. */
typedef struct {
    uint64_t mac;
    uint32_t address;
    uint32_t hostname_offset;
    uint32_t hostname_length;
    uint32_t reserved;
} lh_reservation;

/* A MAC whose reservation was withdrawn: until `until_ms` its REQUESTs go on to Kea, which answers NAK. */
typedef struct {
    uint64_t mac;
    int64_t until_ms;
} lh_withdrawal;

/* Takes the options, growing or shrinking queue and table without losing what they hold, except what no longer fits
 * (counted as lost). */
void lh_configure(const lh_options* options);

/* Changes one subnet's set in one step under the store's lock: the withdrawals are taken out, then the reservations
 * put in (or over what their MAC had). With `replace`, what is in neither list is withdrawn too, until
 * `replaced_until_ms`. A lease that a withdrawn or moved MAC holds, or that another MAC holds on an address given
 * here, is deleted from Kea's lease database, see lh_leases_settled(). Returns the number of reservations the subnet
 * now has. */
uint64_t lh_store_apply(uint32_t subnet_id, const lh_reservation* set, size_t set_count, const char* names,
                        size_t names_length, const lh_withdrawal* unset, size_t unset_count, int replace,
                        int64_t replaced_until_ms);

/* Whether the leases that were to be deleted on the subnet are. Where they could not be, as before the server is
 * configured, this tries again; so does the next configuration. A subnet that is not managed has nobody to serve, and
 * is asked about again when it is. Kea's main thread only. */
int lh_leases_settled(uint32_t subnet_id);

/* Seconds: the longest valid lifetime of a lease that the running configuration can grant on the subnet, or on any
 * subnet where it does not have this one. */
uint32_t lh_longest_lifetime_s(uint32_t subnet_id);

/* Copies up to `capacity` ids of the configured subnets that carry Leasehold's mark; returns how many there are. */
size_t lh_managed_subnets(uint32_t* ids, size_t capacity);

/* Writes waiting lease events as lines of JSON (UTF-8, each ended by '\n', never a part of one) to `out`, and
 * numbers them: the first gets `next_sequence`. Events lost since the last call come first, as one events.gap line.
 * Returns the octets written; `*count` is the number of lines. */
size_t lh_events_drain(char* out, size_t capacity, uint64_t next_sequence, uint64_t* count);

/* The same for the rejections, as client.rejected lines. The first call closes the window since the last report; what
 * does not fit comes with the next calls; one that writes nothing ends the report. */
size_t lh_rejections_drain(char* out, size_t capacity, uint64_t next_sequence, uint64_t* count);

typedef struct {
    uint64_t queued;             /* records waiting in the event queue */
    uint64_t enqueued;           /* since the process started */
    uint64_t lost;               /* since the process started, the queue being full */
    uint64_t rejected_unknown;   /* packets dropped: (subnet, MAC) never known here */
    uint64_t rejected_withdrawn; /* packets of withdrawn clients, dropped or passed on for a NAK */
    uint64_t rejected_doubt;     /* packets dropped for any other reason, an exception for one */
} lh_counters;
void lh_counters_read(lh_counters* counters);

/* What this server knows of one client, as JSON (UTF-8): its reservations, what was heard of it and what was answered
 * or refused, and its leases. Good until the next call; Kea's main thread only. NULL if the lease database cannot be
 * read. */
const char* lh_client_get(uint64_t mac);

/* What keeps guests from being heard on the interfaces that have an IPv4 address, as JSON (UTF-8). Good until the next
 * call; Kea's main thread only. NULL if the kernel does not tell. */
const char* lh_interfaces(void);

/* Sets a Kea statistic, `leasehold.` and `name`. */
void lh_statistic_set(const char* name, int64_t value);

/* Logs `text` through Kea's logger `leasehold-hooks` under the message id LEASEHOLD_`id`. */
void lh_log(int level, const char* id, const char* text);

/* Makes the calling thread a background thread: the lowest scheduling priority, and every signal blocked, SIGPIPE among
 * them, which a socket that the other side has closed would raise and which ends a Kea. */
void lh_lower_priority(void);

/* Kea's version, "2.2.0". */
const char* lh_kea_version(void);

/* ---- Implemented in Python, called by C++ -------------------------------------------------------------------- */

/* Called from load() with the hook's parameters as JSON. Returns NULL, or a sentence that names the bad parameter. */
extern const char* leasehold_load(const char* parameters_json);

/* Called from dhcp4_srv_configured, when the lease database and configuration are in place. */
extern void leasehold_configured(void);

/* Called when these subnets, which were Leasehold's, are in force no more, and the store has forgotten them. */
extern void leasehold_forget(const uint32_t* subnet_ids, size_t count);

/* Called from unload(): everything is on disk after it. */
extern void leasehold_unload(void);

/* One control command, whole, as JSON; the answer, as JSON, is good until the next call. */
extern const char* leasehold_command(const char* command_json);

/* cffi: end */
#ifdef __cplusplus
}
#endif
#endif
