#pragma once

#include <string>

namespace atod {

// What a person should see: a line `warning: TEXT` on stderr, which `atod up`
// shows, once, with the name of the service. Thread-safe.
void LogWarning(const std::string& text);

}  // namespace atod
