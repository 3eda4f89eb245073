// Debian 12's kea-dev 2.2.0 ships headers that include this one, but not this one itself. These few declarations let
// them compile. Searched after Kea's own folder, so that a complete kea-dev wins.
//
// Nothing may call through them: the numbers of the indexes are not Kea's. (So no Network::get…() that inherits from
// the global parameters: it is a template that would be compiled here, with these numbers.)
#ifndef CFG_GLOBALS_H
#define CFG_GLOBALS_H

#include <boost/shared_ptr.hpp>
#include <string>

#include <cc/cfg_to_element.h>
#include <cc/data.h>

namespace isc {
namespace dhcp {

class CfgGlobals : public isc::data::CfgToElement {
public:
    enum Index : int {
        AUTHORITATIVE,
        BOOT_FILE_NAME,
        CACHE_MAX_AGE,
        CACHE_THRESHOLD,
        CALCULATE_TEE_TIMES,
        DDNS_GENERATED_PREFIX,
        DDNS_OVERRIDE_CLIENT_UPDATE,
        DDNS_OVERRIDE_NO_UPDATE,
        DDNS_QUALIFYING_SUFFIX,
        DDNS_REPLACE_CLIENT_NAME,
        DDNS_SEND_UPDATES,
        DDNS_UPDATE_ON_RENEW,
        DDNS_USE_CONFLICT_RESOLUTION,
        HOSTNAME_CHAR_REPLACEMENT,
        HOSTNAME_CHAR_SET,
        MATCH_CLIENT_ID,
        MAX_PREFERRED_LIFETIME,
        MAX_VALID_LIFETIME,
        MIN_PREFERRED_LIFETIME,
        MIN_VALID_LIFETIME,
        NEXT_SERVER,
        PREFERRED_LIFETIME,
        REBIND_TIMER,
        RENEW_TIMER,
        RESERVATIONS_GLOBAL,
        RESERVATIONS_IN_SUBNET,
        RESERVATIONS_OUT_OF_POOL,
        SERVER_HOSTNAME,
        STORE_EXTENDED_INFO,
        T1_PERCENT,
        T2_PERCENT,
        VALID_LIFETIME
    };

    isc::data::ConstElementPtr get(const std::string& name) const;
    isc::data::ConstElementPtr get(int index) const;
    void set(const std::string& name, isc::data::ConstElementPtr value);
    void set(int index, isc::data::ConstElementPtr value);
    void clear();
};

using CfgGlobalsPtr = boost::shared_ptr<CfgGlobals>;
using ConstCfgGlobalsPtr = boost::shared_ptr<const CfgGlobals>;

}  // namespace dhcp
}  // namespace isc

#endif
