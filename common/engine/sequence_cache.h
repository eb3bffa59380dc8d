#pragma once

#include <cstdint>
#include <list>
#include <vector>

#include "absl/types/span.h"
#include "common/engine/region_pool.h"
#include "common/model/language_model.h"

namespace atod::engine {

// For LanguageModel::CopyCache.
struct CacheCopy {
  model::Region from;
  model::Region to;
  int64_t rows = 0;
};

// A sequence of tokens with a region of the cache. Written by SequenceCache.
struct Sequence {
  uint64_t session = 0;  // 0: none
  uint64_t group = 0;    // 0: none
  model::Region region;
  std::vector<int32_t> tokens;
  int64_t prompt = 0;  // tokens it was opened with
  int64_t held = 0;    // of `tokens`, from the first: keys lie in the region
  bool living = true;  // opened and not closed; else an idle session
  // While set: this one computes nothing, for its first `shared` tokens are
  // copied from there as soon as they are held.
  const Sequence* source = nullptr;
  int64_t shared = 0;
};

// Which tokens' keys and values lie where in the cache of one model, and what
// need not be computed again: what a session left behind, and what another
// sequence of the same group computes. It only counts and orders: its owner
// carries out the copies, then runs the tokens, then says so by Wrote.
//
// All that is held was computed by the model's present weights: NewWeights
// makes every sequence hold nothing. Not thread-safe.
class SequenceCache {
 public:
  struct Opening {
    uint64_t session = 0;  // without a living sequence; 0: none
    uint64_t group = 0;
    absl::Span<const int32_t> prompt;
    int64_t rows = 0;  // for prompt and response; at most rows()
    // Tokens of the prompt, from the first, that need not be computed if they
    // are held somewhere.
    int64_t reusable = 0;
  };

  explicit SequenceCache(int64_t rows) : pool_(rows) {}

  // A living sequence that holds what could be had: of its session, else the
  // longest beginning that one of its group holds or is about to hold. Grows
  // the session's region in place or copies it; idle sessions give way, least
  // recently used first, its own last. nullptr, and nothing changed, when only
  // the end of living ones makes room.
  Sequence* Open(const Opening& opening);
  // Keys of the next `count` tokens lie in the region now.
  void Wrote(Sequence& sequence, int64_t count);
  void Append(Sequence& sequence, int32_t token);
  // The sequence of a session becomes idle and keeps what it holds; others are
  // gone. `sequence` is not to be used after.
  void Close(Sequence& sequence);
  // Nothing of the session is kept, from now or from the end of its living
  // sequence on.
  void EndSession(uint64_t session);
  // Living sequences hold nothing any more, idle ones are gone.
  void NewWeights();
  void Clear();

  // What Open and Wrote decided, in the order in which it is to be done,
  // before any token runs.
  std::vector<CacheCopy> TakeCopies();

  const RegionPool& pool() const { return pool_; }
  int64_t rows() const { return pool_.rows(); }
  int64_t idle_sessions() const;
  bool IsLiving(uint64_t session) const;
  // Since the beginning: tokens that were held or copied where they would have
  // been computed, and sessions that gave way.
  int64_t reused_tokens() const { return reused_; }
  int64_t evicted_sessions() const { return evicted_; }

 private:
  using Iterator = std::list<Sequence>::iterator;
  Iterator FindIdle(uint64_t session);
  // A region of `rows` that has the first `held` rows of the sequence's present
  // one, if any; it may have to let them go. There is enough to be had.
  void Place(Sequence& sequence, int64_t rows);
  bool EvictOldest(const Sequence& keep);
  void Compact();
  // Points the sequence to who holds most of its prompt, and copies if it can.
  void FindSource(Sequence& sequence, int64_t reusable);
  void CopyFrom(const Sequence& source, Sequence& sequence, int64_t rows);

  RegionPool pool_;
  // In the order of their last Open or Close.
  std::list<Sequence> sequences_;
  std::vector<CacheCopy> copies_;
  int64_t reused_ = 0;
  int64_t evicted_ = 0;
};

}  // namespace atod::engine
