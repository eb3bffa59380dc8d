#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/status/status.h"

namespace atod::envs {

// Index of an object; objects are sorted by id, so ids and indices order alike.
using ObjectId = int32_t;
inline constexpr ObjectId kNoObject = -1;

// A set of argument tuples, kept in ascending order.
class Relation {
 public:
  explicit Relation(int arity = 0) : arity_(arity) {}

  int arity() const { return arity_; }
  size_t size() const { return size_; }
  // [arity] objects.
  const ObjectId* row(size_t i) const { return rows_.data() + i * arity_; }
  bool Contains(const ObjectId* args) const;
  void Insert(const ObjectId* args);
  void Erase(const ObjectId* args);
  // Rows [first, second) whose first argument is `object`.
  std::pair<size_t, size_t> RowsOf(ObjectId object) const;

 private:
  // First row that is not below `args`.
  size_t LowerBound(const ObjectId* args) const;
  int Compare(size_t i, const ObjectId* args) const;

  int arity_;
  size_t size_ = 0;
  std::vector<ObjectId> rows_;
};

struct Predicate {
  std::string name;
  int arity = 0;
  bool added = false;    // some action can add it
  bool deleted = false;  // some action can delete it
  int fluent = -1;       // place in State, -1 when nothing changes it
  // Predicate that records deletions of this one ("not_NAME"), -1 for none.
  int recorded_as = -1;
};

// Objects, types and predicates of one game.
struct Vocabulary {
  std::vector<std::string> objects;  // ids, ascending
  std::vector<std::string> types;
  std::vector<Predicate> predicates;
  // [type][object]: the object belongs to the type or a sub-type of it.
  std::vector<std::vector<uint8_t>> is_a;
  std::vector<int> type_of;  // [object]
  absl::flat_hash_map<std::string, ObjectId> object_index;
  absl::flat_hash_map<std::string, int> type_index;
  absl::flat_hash_map<std::string, int> predicate_index;

  // -1 when unknown.
  ObjectId FindObject(std::string_view id) const;
  int FindType(std::string_view name) const;
  int FindPredicate(std::string_view name) const;
  bool IsA(ObjectId object, int type) const {
    return type >= 0 && is_a[type][object] != 0;
  }
};

// The relations that actions change, by Predicate::fluent.
using State = std::vector<Relation>;

// All facts that hold: what never changes and one state. Refers to both. Not
// thread-safe: searches on it share one allowance of steps, many times what a
// game needs, so that no game text can keep a server busy for ever.
class Facts {
 public:
  static constexpr int64_t kMaxSteps = 1'000'000;

  Facts(const Vocabulary& vocabulary, const std::vector<Relation>& fixed,
        const State& state)
      : vocabulary_(vocabulary), fixed_(fixed), state_(state) {}
  const Vocabulary& vocabulary() const { return vocabulary_; }
  const Relation& of(int predicate) const {
    const int fluent = vocabulary_.predicates[predicate].fluent;
    return fluent < 0 ? fixed_[predicate] : state_[fluent];
  }
  // Takes one step off the allowance; false when there is none left. Results of
  // a search that met the end mean nothing: ask Searchable.
  bool Spend() const { return --left_ >= 0; }
  absl::Status Searchable() const;

 private:
  const Vocabulary& vocabulary_;
  const std::vector<Relation>& fixed_;  // by predicate
  const State& state_;
  mutable int64_t left_ = kMaxSteps;
};

}  // namespace atod::envs
