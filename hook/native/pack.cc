#include "pack.h"

#include <dhcp/libdhcp++.h>
#include <util/buffer.h>

#include <algorithm>
#include <array>

using isc::dhcp::Pkt4;

namespace leasehold {
namespace {

constexpr size_t kChaddr = Pkt4::MAX_CHADDR_LEN;
constexpr size_t kLongestOption = 255;  // octets, as Kea counts them: with code and length

}  // namespace

bool pack(Pkt4& answer) {
    const isc::dhcp::HWAddrPtr hwaddr = answer.getHWAddr();
    const auto fits = [](const auto& each) { return each.second->len() <= kLongestOption; };
    if (!hwaddr || hwaddr->hwaddr_.size() > kChaddr ||
        !std::all_of(answer.options_.begin(), answer.options_.end(), fits)) {
        return false;
    }
    // RFC 2131, figure 1.
    isc::util::OutputBuffer& out = answer.getBuffer();
    out.clear();
    out.writeUint8(answer.getOp());
    out.writeUint8(static_cast<uint8_t>(hwaddr->htype_));
    out.writeUint8(static_cast<uint8_t>(hwaddr->hwaddr_.size()));
    out.writeUint8(answer.getHops());
    out.writeUint32(answer.getTransid());
    out.writeUint16(answer.getSecs());
    out.writeUint16(answer.getFlags());
    for (const auto& address : {answer.getCiaddr(), answer.getYiaddr(), answer.getSiaddr(), answer.getGiaddr()}) {
        out.writeUint32(address.toUint32());
    }
    std::array<uint8_t, kChaddr> chaddr{};
    std::copy(hwaddr->hwaddr_.begin(), hwaddr->hwaddr_.end(), chaddr.begin());
    out.writeData(chaddr.data(), chaddr.size());
    const isc::dhcp::OptionBuffer sname = answer.getSname();
    out.writeData(sname.data(), sname.size());
    const isc::dhcp::OptionBuffer file = answer.getFile();
    out.writeData(file.data(), file.size());
    out.writeUint32(isc::dhcp::DHCP_OPTIONS_COOKIE);
    isc::dhcp::LibDHCP::packOptions4(out, answer.options_, true);
    out.writeUint8(isc::dhcp::DHO_END);
    return true;
}

}  // namespace leasehold
