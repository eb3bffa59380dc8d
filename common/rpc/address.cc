#include "common/rpc/address.h"

#include <arpa/inet.h>

#include <algorithm>
#include <cctype>

#include "absl/strings/ascii.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "common/base/problem.h"
#include "common/base/status_macros.h"

namespace atod::rpc {
namespace {

bool IsV6(const std::string& host) {
  in6_addr v6;
  return inet_pton(AF_INET6, host.c_str(), &v6) == 1;
}

bool IsName(const std::string& host) {
  return !host.empty() && std::all_of(host.begin(), host.end(), [](char c) {
    return std::isalnum(static_cast<unsigned char>(c)) || c == '.' ||
           c == '-' || c == '_';
  });
}

}  // namespace

std::string Address::ToString() const {
  return host.find(':') == std::string::npos
             ? absl::StrCat(host, ":", port)
             : absl::StrCat("[", host, "]:", port);
}

absl::StatusOr<Address> ParseAddress(const std::string& text,
                                     const std::string& field) {
  const auto refuse = [&] {
    return BadInput({"", field, 0, absl::StrCat("\"", text, "\""),
                     "HOST:PORT with a port from 0 to 65535"});
  };
  const size_t colon = text.rfind(':');
  if (colon == std::string::npos) return refuse();
  Address out;
  out.host = text.substr(0, colon);
  const std::string port = text.substr(colon + 1);
  uint32_t number = 0;
  if (port.empty() || !std::all_of(port.begin(), port.end(), ::isdigit) ||
      !absl::SimpleAtoi(port, &number) || number > 65535) {
    return refuse();
  }
  out.port = number;
  if (out.host.size() > 2 && out.host.front() == '[' &&
      out.host.back() == ']') {
    out.host = out.host.substr(1, out.host.size() - 2);
    if (!IsV6(out.host)) return refuse();
  } else if (!IsName(out.host)) {
    return refuse();
  }
  return out;
}

absl::StatusOr<std::vector<Address>> ParseAddresses(const std::string& text,
                                                    const std::string& field) {
  std::vector<Address> out;
  for (const auto piece : absl::StrSplit(text, ',')) {
    const std::string one(absl::StripAsciiWhitespace(piece));
    ATOD_ASSIGN_OR_RETURN(out.emplace_back(), ParseAddress(one, field));
  }
  return out;
}

bool IsLoopback(const std::string& host) {
  in_addr v4;
  if (inet_pton(AF_INET, host.c_str(), &v4) == 1) {
    return ntohl(v4.s_addr) >> 24 == 127;
  }
  in6_addr v6;
  if (inet_pton(AF_INET6, host.c_str(), &v6) == 1) {
    return IN6_IS_ADDR_LOOPBACK(&v6);
  }
  return host == "localhost";
}

absl::StatusOr<std::string> ListenAddress(const std::string& bind,
                                          const std::string& address,
                                          const std::string& field) {
  if (!IsV6(bind) && !IsName(bind)) {
    return BadInput({"", "rpc.bind", 0, absl::StrCat("\"", bind, "\""),
                     "an interface such as 127.0.0.1 or 0.0.0.0"});
  }
  ATOD_ASSIGN_OR_RETURN(Address out, ParseAddress(address, field));
  out.host = bind;
  return out.ToString();
}

absl::StatusOr<std::string> ListenAddressAt(const std::string& bind,
                                            const std::string& addresses,
                                            uint32_t index,
                                            const std::string& field) {
  ATOD_ASSIGN_OR_RETURN(const std::vector<Address> all,
                        ParseAddresses(addresses, field));
  if (index >= all.size())
    return absl::InvalidArgumentError(
        absl::StrCat("--index is past the end of ", field));
  return ListenAddress(bind, all[index].ToString(), field);
}

}  // namespace atod::rpc
