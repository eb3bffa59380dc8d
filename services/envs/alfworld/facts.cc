#include "services/envs/alfworld/facts.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "common/base/problem.h"

namespace atod::envs {

int Relation::Compare(size_t i, const ObjectId* args) const {
  const ObjectId* r = row(i);
  for (int k = 0; k < arity_; ++k)
    if (r[k] != args[k]) return r[k] < args[k] ? -1 : 1;
  return 0;
}

size_t Relation::LowerBound(const ObjectId* args) const {
  size_t low = 0, high = size_;
  while (low < high) {
    const size_t middle = (low + high) / 2;
    if (Compare(middle, args) < 0)
      low = middle + 1;
    else
      high = middle;
  }
  return low;
}

bool Relation::Contains(const ObjectId* args) const {
  const size_t i = LowerBound(args);
  return i < size_ && Compare(i, args) == 0;
}

void Relation::Insert(const ObjectId* args) {
  const size_t i = LowerBound(args);
  if (i < size_ && Compare(i, args) == 0) return;
  rows_.insert(rows_.begin() + i * arity_, args, args + arity_);
  ++size_;
}

void Relation::Erase(const ObjectId* args) {
  const size_t i = LowerBound(args);
  if (i == size_ || Compare(i, args) != 0) return;
  rows_.erase(rows_.begin() + i * arity_, rows_.begin() + (i + 1) * arity_);
  --size_;
}

std::pair<size_t, size_t> Relation::RowsOf(ObjectId object) const {
  auto bound = [&](ObjectId least) {
    size_t low = 0, high = size_;
    while (low < high) {
      const size_t middle = (low + high) / 2;
      if (row(middle)[0] < least)
        low = middle + 1;
      else
        high = middle;
    }
    return low;
  };
  return {bound(object), bound(object + 1)};
}

namespace {

int Find(const absl::flat_hash_map<std::string, int>& index,
         std::string_view name) {
  const auto it = index.find(std::string(name));
  return it == index.end() ? -1 : it->second;
}

}  // namespace

absl::Status Facts::Searchable() const {
  if (left_ >= 0) return absl::OkStatus();
  return BadInput({.file = "",
                   .field = "game",
                   .line = 0,
                   .found = "conditions that take too long to search",
                   .expected = absl::StrCat("at most ", kMaxSteps, " steps")});
}

ObjectId Vocabulary::FindObject(std::string_view id) const {
  return Find(object_index, id);
}
int Vocabulary::FindType(std::string_view name) const {
  return Find(type_index, name);
}
int Vocabulary::FindPredicate(std::string_view name) const {
  return Find(predicate_index, name);
}

}  // namespace atod::envs
