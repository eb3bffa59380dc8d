#include "common/metrics/metrics.h"

#include <cctype>
#include <exception>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "common/base/problem.h"

namespace atod::metrics {
namespace {

const char* HelpOf(const std::string& tag) {
  for (const StepTag& known : kStepTags) {
    const std::string_view name(known.tag);
    if (name == tag) return known.help;
    if (name.ends_with("/*") &&
        tag.starts_with(name.substr(0, name.size() - 1))) {
      return known.help;
    }
  }
  return "Value of the last step";
}

// Null when it cannot listen there; why is not told.
std::unique_ptr<prometheus::Exposer> TryToListen(const std::string& at) {
  try {
    return std::make_unique<prometheus::Exposer>(at, 1);
  } catch (const std::exception&) {
    return nullptr;
  }
}

std::string HostAndPort(const std::string& host, uint16_t port) {
  return absl::StrCat(
      host.find(':') == std::string::npos ? host : absl::StrCat("[", host, "]"),
      ":", port);
}

absl::StatusOr<std::unique_ptr<prometheus::Exposer>> Listen(
    const std::string& host, uint16_t port) {
  const std::string at = HostAndPort(host, port);
  std::unique_ptr<prometheus::Exposer> exposer = TryToListen(at);
  if (exposer == nullptr) {
    if (const absl::Status usable = CheckHost(host); !usable.ok())
      return usable;
    return absl::AlreadyExistsError(
        absl::StrCat(at, ": cannot serve /metrics, found the port in use or ",
                     "the interface absent, expected a free port"));
  }
  return exposer;
}

}  // namespace

void SetModelInfo(Registry& registry, const std::string& role,
                  const std::string& model, const std::string& back_end,
                  const std::string& device, const std::string& dtype) {
  registry
      .Gauge(kModelInfo, {{"role", role},
                          {"model", model},
                          {"back_end", back_end},
                          {"device", device},
                          {"dtype", dtype}})
      .Set(1);
}

absl::Status CheckHost(const std::string& host) {
  if (TryToListen(HostAndPort(host, 0)) != nullptr) return absl::OkStatus();
  return BadInput(
      {.field = "rpc.bind",
       .found = absl::StrCat(host, ", where /metrics cannot be served"),
       .expected = host.find(':') == std::string::npos
                       ? "an interface of this machine"
                       : "an IPv4 interface (the HTTP library, civetweb, is "
                         "often built without IPv6), or 0 for every "
                         "metrics.*_port"});
}

bool MeasuredByClock(std::string_view tag) {
  return tag.starts_with("timing/") || tag.starts_with("throughput/") ||
         tag.starts_with("memory/");
}

std::string PrometheusName(std::string_view tag) {
  std::string out = "atod_";
  // What data names begins behind the second slash.
  const size_t slash = tag.find('/', tag.find('/') + 1);
  const size_t named = slash == tag.npos ? tag.size() : slash + 1;
  for (size_t i = 0; i < tag.size(); ++i) {
    const char c = tag[i];
    if (i < named) {
      out.push_back(std::isalnum(static_cast<unsigned char>(c)) ? c : '_');
    } else if (std::isalnum(static_cast<unsigned char>(c)) ||
               (c == '_' && i + 1 < tag.size() && tag[i + 1] != 'x')) {
      out.push_back(c);
    } else if (c == '*' && i + 1 == tag.size() && i == named) {
      out.push_back('_');
    } else {
      absl::StrAppendFormat(&out, "_x%02x_", static_cast<unsigned char>(c));
    }
  }
  // A category may be called like the end of a tag of ours ("best").
  if (named < tag.size())
    for (const StepTag& own : kStepTags)
      if (own.tag != tag && std::string_view(own.tag).find('*') == tag.npos &&
          PrometheusName(own.tag) == out)
        out.push_back('_');
  return out;
}

const std::vector<double>& CallSeconds() {
  static const auto* const kBounds = new std::vector<double>{
      0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1,
      0.2,    0.5,   1,     2,     5,    10,   30};
  return *kBounds;
}

const std::vector<double>& Sizes() {
  static const auto* const kBounds = [] {
    auto* bounds = new std::vector<double>;
    for (double size = 1; size <= 65536; size *= 2) bounds->push_back(size);
    return bounds;
  }();
  return *kBounds;
}

prometheus::Counter& Registry::Counter(const ServiceMetric& metric,
                                       const Labels& labels) {
  return prometheus::BuildCounter()
      .Name(metric.name)
      .Help(metric.help)
      .Register(*registry_)
      .Add(labels);
}

prometheus::Gauge& Registry::Gauge(const ServiceMetric& metric,
                                   const Labels& labels) {
  return prometheus::BuildGauge()
      .Name(metric.name)
      .Help(metric.help)
      .Register(*registry_)
      .Add(labels);
}

prometheus::Histogram& Registry::Histogram(const ServiceMetric& metric,
                                           const std::vector<double>& bounds,
                                           const Labels& labels) {
  return prometheus::BuildHistogram()
      .Name(metric.name)
      .Help(metric.help)
      .Register(*registry_)
      .Add(labels, bounds);
}

prometheus::Gauge& Registry::StepGauge(const std::string& tag,
                                       const std::string& run) {
  return prometheus::BuildGauge()
      .Name(PrometheusName(tag))
      .Help(HelpOf(tag))
      .Register(*registry_)
      .Add({{"run", run}});
}

absl::StatusOr<std::unique_ptr<MetricsServer>> MetricsServer::Start(
    const std::string& host, uint16_t port, const Registry& registry) {
  if (port == 0) return std::make_unique<MetricsServer>();
  auto exposer = Listen(host, port);
  if (!exposer.ok()) return exposer.status();
  auto server = std::make_unique<MetricsServer>();
  server->registry_ = registry.prometheus();
  server->exposer_ = *std::move(exposer);
  server->exposer_->RegisterCollectable(server->registry_);
  server->port_ = port;
  return server;
}

absl::StatusOr<std::unique_ptr<MetricsServer>> MetricsServer::StartOnFreePort(
    const std::string& host, const Registry& registry) {
  auto exposer = Listen(host, 0);
  if (!exposer.ok()) return exposer.status();
  auto server = std::make_unique<MetricsServer>();
  server->registry_ = registry.prometheus();
  server->exposer_ = *std::move(exposer);
  server->exposer_->RegisterCollectable(server->registry_);
  server->port_ = server->exposer_->GetListeningPorts().at(0);
  return server;
}

}  // namespace atod::metrics
