#include "common/engine/sequence_cache.h"

#include <algorithm>
#include <cstdlib>
#include <iterator>
#include <utility>

namespace atod::engine {
namespace {

using model::Region;

// Fewer tokens are computed sooner than waited for.
constexpr int64_t kLeastShared = model::kCacheUnit;

// How many of the first tokens are equal.
int64_t CommonPrefix(absl::Span<const int32_t> a, absl::Span<const int32_t> b) {
  const size_t n = std::min(a.size(), b.size());
  return std::mismatch(a.begin(), a.begin() + n, b.begin()).first - a.begin();
}

}  // namespace

Sequence* SequenceCache::Open(const Opening& opening) {
  const int64_t rows = RegionPool::RoundUp(opening.rows);
  int64_t available = pool_.free();
  for (const Sequence& s : sequences_)
    if (!s.living) available += s.region.rows;
  if (rows > available) return nullptr;

  Iterator it = FindIdle(opening.session);
  if (it == sequences_.end()) {
    it = sequences_.emplace(sequences_.end());
    it->session = opening.session;
  } else {
    sequences_.splice(sequences_.end(), sequences_, it);
  }
  Sequence& s = *it;
  s.living = true;
  s.group = opening.group;
  s.held = std::min(
      {s.held, opening.reusable, CommonPrefix(s.tokens, opening.prompt)});
  s.tokens.assign(opening.prompt.begin(), opening.prompt.end());
  s.prompt = static_cast<int64_t>(s.tokens.size());
  Place(s, rows);
  reused_ += s.held;
  FindSource(s, opening.reusable);
  return &s;
}

void SequenceCache::Place(Sequence& s, int64_t rows) {
  while (true) {
    if (s.region.rows > 0 && s.held == 0)
      pool_.Free(std::exchange(s.region, Region{}));
    if (s.region.rows > 0 && pool_.Grow(s.region, rows)) {
      pool_.Shrink(s.region, rows);
      return;
    }
    if (const auto region = pool_.Allocate(rows); region.has_value()) {
      if (s.region.rows > 0) {
        copies_.push_back({s.region, *region, s.held});
        pool_.Free(s.region);
      }
      s.region = *region;
      return;
    }
    if (pool_.free() >= rows)
      Compact();
    else if (!EvictOldest(s))
      s.held = 0;
  }
}

bool SequenceCache::EvictOldest(const Sequence& keep) {
  for (auto it = sequences_.begin(); it != sequences_.end(); ++it) {
    if (it->living || &*it == &keep) continue;
    pool_.Free(it->region);
    sequences_.erase(it);
    ++evicted_;
    return true;
  }
  return false;
}

void SequenceCache::Compact() {
  for (const RegionPool::Move& move : pool_.Compact()) {
    const auto it = std::find_if(
        sequences_.begin(), sequences_.end(), [&](const Sequence& s) {
          return s.region.rows > 0 && s.region.begin == move.from;
        });
    const Region from = it->region;
    it->region.begin = move.to;
    if (it->held > 0) copies_.push_back({from, it->region, it->held});
  }
}

void SequenceCache::FindSource(Sequence& s, int64_t reusable) {
  s.source = nullptr;
  if (s.group == 0) return;
  const absl::Span<const int32_t> prompt(s.tokens.data(), reusable);
  const Sequence* best = nullptr;
  int64_t most = std::max(s.held, kLeastShared - 1);
  bool older = true;  // only these are waited for, so that none waits in a ring
  for (const Sequence& other : sequences_) {
    if (&other == &s) older = false;
    if (&other == &s || other.group != s.group) continue;
    const int64_t known = other.living && older ? other.prompt : other.held;
    const int64_t shared = CommonPrefix(
        prompt, absl::MakeConstSpan(other.tokens).subspan(0, known));
    if (shared <= most) continue;
    most = shared;
    best = &other;
  }
  if (best == nullptr) return;
  s.shared = most;
  if (best->held >= most)
    CopyFrom(*best, s, most);
  else
    s.source = best;
}

void SequenceCache::CopyFrom(const Sequence& source, Sequence& s,
                             int64_t rows) {
  copies_.push_back({source.region, s.region, rows});
  reused_ += rows - s.held;
  s.held = rows;
  s.source = nullptr;
}

void SequenceCache::Wrote(Sequence& sequence, int64_t count) {
  sequence.held += count;
  for (Sequence& s : sequences_)
    if (s.source == &sequence && sequence.held >= s.shared)
      CopyFrom(sequence, s, s.shared);
}

void SequenceCache::Append(Sequence& sequence, int32_t token) {
  sequence.tokens.push_back(token);
}

void SequenceCache::Close(Sequence& sequence) {
  const auto it =
      std::find_if(sequences_.begin(), sequences_.end(),
                   [&](const Sequence& s) { return &s == &sequence; });
  if (it == sequences_.end()) std::abort();
  std::list<Sequence> closed;
  closed.splice(closed.end(), sequences_, it);
  Sequence& s = closed.front();
  s.living = false;
  s.source = nullptr;
  s.tokens.resize(s.held);
  if (s.session != 0 && s.held > 0) {
    pool_.Shrink(s.region, s.held);
    sequences_.splice(sequences_.end(), closed);
  } else {
    pool_.Free(s.region);
  }
  // It was cancelled before it held what these wait for.
  for (Sequence& waiting : sequences_)
    if (waiting.source == &sequence) FindSource(waiting, waiting.shared);
}

SequenceCache::Iterator SequenceCache::FindIdle(uint64_t session) {
  if (session == 0) return sequences_.end();
  return std::find_if(
      sequences_.begin(), sequences_.end(),
      [&](const Sequence& s) { return !s.living && s.session == session; });
}

bool SequenceCache::IsLiving(uint64_t session) const {
  return std::any_of(
      sequences_.begin(), sequences_.end(),
      [&](const Sequence& s) { return s.living && s.session == session; });
}

int64_t SequenceCache::idle_sessions() const {
  return std::count_if(sequences_.begin(), sequences_.end(),
                       [](const Sequence& s) { return !s.living; });
}

void SequenceCache::EndSession(uint64_t session) {
  if (session == 0) return;
  for (auto it = sequences_.begin(); it != sequences_.end();) {
    if (it->session != session) {
      ++it;
    } else if (it->living) {
      (it++)->session = 0;
    } else {
      pool_.Free(it->region);
      it = sequences_.erase(it);
    }
  }
}

void SequenceCache::NewWeights() {
  copies_.clear();
  for (auto it = sequences_.begin(); it != sequences_.end();) {
    it->held = 0;
    if (it->living) {
      ++it;
    } else {
      pool_.Free(it->region);
      it = sequences_.erase(it);
    }
  }
}

void SequenceCache::Clear() {
  copies_.clear();
  for (const Sequence& s : sequences_) pool_.Free(s.region);
  sequences_.clear();
}

std::vector<CacheCopy> SequenceCache::TakeCopies() {
  return std::exchange(copies_, {});
}

}  // namespace atod::engine
