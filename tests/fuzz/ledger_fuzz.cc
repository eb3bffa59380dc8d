// A ledger.db: checked, and opened as a learner would.
#include "services/learner/ledger.h"
#include "services/learner/ledger_check.h"
#include "tests/fuzz/fuzz.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string path =
      atod::WriteInput("ledger.db", atod::Text(data, size));
  atod::learner::CheckLedger(path).status().IgnoreError();
  atod::learner::CheckRun(atod::FuzzDir()).status().IgnoreError();
  {
    auto ledger = atod::learner::Ledger::Open(path);
    if (ledger.ok()) (*ledger)->Count().status().IgnoreError();
  }
  for (const char* side : {"-wal", "-shm", "-journal"})
    std::remove((path + side).c_str());
  return 0;
}
