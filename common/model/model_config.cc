#include "common/model/model_config.h"

#include <algorithm>
#include <filesystem>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "common/base/file.h"
#include "common/base/json.h"
#include "common/base/problem.h"
#include "common/base/status_macros.h"
#include "common/run/run_folder.h"
#include "nlohmann/json.hpp"

namespace atod::model {
namespace {

namespace fs = std::filesystem;
using Json = nlohmann::json;

// Lists of parameters are made before any weights are seen.
constexpr int64_t kMaxLayers = 4096;
constexpr int64_t kMaxExperts = 65536;  // of all layers

// Reads the keys of one object; the first fault stays in `status`.
class Reader {
 public:
  Reader(const Json& object, std::string file)
      : object_(object), file_(std::move(file)) {}

  // An absent or null key leaves `value` when `required` is false.
  void Positive(const char* key, int64_t& value, bool required = true,
                int64_t most = int64_t{1} << 31) {
    const Json* v = Find(key);
    if (v == nullptr) {
      if (required) Fail(key, "nothing", "a positive whole number");
      return;
    }
    if (!v->is_number_integer() || v->get<int64_t>() <= 0 ||
        v->get<int64_t>() > most)
      return Fail(key, JsonPreview(*v),
                  absl::StrCat("a whole number from 1 to ", most));
    value = v->get<int64_t>();
  }

  void Positive(const char* key, double& value) {
    const Json* v = Find(key);
    if (v == nullptr) return;
    if (!v->is_number() || !(v->get<double>() > 0))
      return Fail(key, v->dump(), "a positive number");
    value = v->get<double>();
  }

  void Bool(const char* key, bool& value) {
    const Json* v = Find(key);
    if (v == nullptr) return;
    if (!v->is_boolean()) return Fail(key, v->dump(), "true or false");
    value = v->get<bool>();
  }

  // The key must be absent, null or `wanted`.
  void Only(const char* key, const Json& wanted) {
    const Json* v = Find(key);
    if (v != nullptr && *v != wanted)
      Fail(key, v->dump(),
           absl::StrCat(wanted.dump(), ": others are not", " supported"));
  }

  // An object of rope parameters must say plain RoPE, whichever of the keys of
  // several years it uses.
  void Rope(const std::string& field, const Json& rope, double& theta) {
    if (!rope.is_object()) return Fail(field, JsonPreview(rope), "an object");
    if (rope.contains("full_attention")) {  // one object a kind of layer
      if (rope.size() > 1)
        return Fail(field, JsonPreview(rope),
                    "\"full_attention\" only: other kinds of layers are not "
                    "supported");
      return Rope(field + ".full_attention", rope["full_attention"], theta);
    }
    for (const char* key : {"rope_type", "type"}) {
      const Json kind = rope.value(key, Json());
      if (!kind.is_null() && kind != "default")
        return Fail(absl::StrCat(field, ".", key), JsonPreview(kind),
                    "\"default\": rope scaling is not supported");
    }
    for (const auto& [key, value] : rope.items()) {
      const std::string path = absl::StrCat(field, ".", key);
      if (value.is_null() || key == "rope_type" || key == "type") continue;
      if (key == "rope_theta") {
        if (!value.is_number() || !(value.get<double>() > 0))
          return Fail(path, JsonPreview(value), "a positive number");
        theta = value.get<double>();
      } else if (key == "partial_rotary_factor") {
        if (value != 1.0) return Fail(path, JsonPreview(value), "1");
      } else {
        return Fail(path, JsonPreview(value),
                    "no such key beside \"default\": rope scaling is not "
                    "supported");
      }
    }
  }

  void Fail(std::string field, std::string found, std::string expected) {
    if (status_.ok())
      status_ = BadInput(
          {file_, std::move(field), 0, std::move(found), std::move(expected)});
  }

  const Json* Find(const char* key) const {
    const auto it = object_.find(key);
    return it == object_.end() || it->is_null() ? nullptr : &*it;
  }

  const absl::Status& status() const { return status_; }

 private:
  const Json& object_;
  std::string file_;
  absl::Status status_;
};

// Refuses all but plain RoPE and attention to everything before.
void ReadAttention(Reader& r, ModelConfig& c) {
  for (const char* key : {"rope_scaling", "rope_parameters"})
    if (const Json* rope = r.Find(key)) r.Rope(key, *rope, c.rope_theta);
  if (const Json* types = r.Find("layer_types")) {
    for (const Json& type : *types)
      if (type != "full_attention")
        r.Fail("layer_types", JsonPreview(type),
               "\"full_attention\": others are not supported");
  }
}

void CheckHeads(const ModelConfig& c, Reader& r) {
  if (c.num_attention_heads % c.num_key_value_heads != 0)
    r.Fail("num_key_value_heads", absl::StrCat(c.num_key_value_heads),
           absl::StrCat("a divisor of num_attention_heads, ",
                        c.num_attention_heads));
  if (c.head_dim % 2 != 0 || c.head_dim == 0)
    r.Fail("head_dim", absl::StrCat(c.head_dim), "an even number from 2 on");
}

// Refuses all but experts in every layer.
void ReadExperts(Reader& r, ModelConfig& c) {
  r.Only("decoder_sparse_step", 1);
  r.Only("mlp_only_layers", Json::array());
  // transformers writes the second name since version 5.
  const int64_t most = kMaxExperts / std::max<int64_t>(1, c.num_hidden_layers);
  r.Positive("num_experts", c.num_experts, false, most);
  int64_t local = c.num_experts;
  r.Positive("num_local_experts", local, false, most);
  if (c.num_experts > 0 && local != c.num_experts)
    r.Fail("num_local_experts", absl::StrCat(local),
           absl::StrCat("num_experts, ", c.num_experts));
  c.num_experts = local;
  if (local == 0) r.Fail("num_experts", "nothing", "a positive whole number");
  r.Positive("num_experts_per_tok", c.num_experts_per_tok);
  if (c.num_experts_per_tok > c.num_experts)
    r.Fail("num_experts_per_tok", absl::StrCat(c.num_experts_per_tok),
           absl::StrCat("at most num_experts, ", c.num_experts));
  r.Positive("moe_intermediate_size", c.moe_intermediate_size);
  r.Bool("norm_topk_prob", c.norm_topk_prob);
}

}  // namespace

absl::StatusOr<ModelConfig> ParseModelConfig(const std::string& text,
                                             const std::string& file) {
  ATOD_ASSIGN_OR_RETURN(const Json json, ParseJson(text, file));
  if (!json.is_object())
    return BadInput({file, "", 0, "text that is no JSON object",
                     "a Hugging Face config.json"});
  Reader r(json, file);
  ModelConfig c;
  const Json* const type = r.Find("model_type");
  const bool experts = type != nullptr && *type == "qwen3_moe";
  if (!experts && (type == nullptr || *type != "qwen3"))
    r.Fail("model_type", type == nullptr ? "nothing" : JsonPreview(*type),
           "\"qwen3\" or \"qwen3_moe\": others are not supported");
  r.Only("hidden_act", "silu");
  r.Only("attention_bias", false);
  r.Only("use_sliding_window", false);
  r.Only("partial_rotary_factor", 1.0);
  r.Only("quantization_config", nullptr);
  r.Positive("vocab_size", c.vocab_size);
  r.Positive("hidden_size", c.hidden_size);
  r.Positive("intermediate_size", c.intermediate_size, !experts);
  r.Positive("num_hidden_layers", c.num_hidden_layers, true, kMaxLayers);
  r.Positive("num_attention_heads", c.num_attention_heads);
  c.num_key_value_heads = c.num_attention_heads;
  r.Positive("num_key_value_heads", c.num_key_value_heads, false);
  // transformers' defaults
  c.head_dim = experts
                   ? c.hidden_size / std::max<int64_t>(1, c.num_attention_heads)
                   : 128;
  r.Positive("head_dim", c.head_dim, false);
  c.max_position_embeddings = 32768;
  r.Positive("max_position_embeddings", c.max_position_embeddings, false);
  r.Positive("rms_norm_eps", c.rms_norm_eps);
  r.Positive("rope_theta", c.rope_theta);
  r.Bool("tie_word_embeddings", c.tie_word_embeddings);
  if (experts) ReadExperts(r, c);
  ReadAttention(r, c);
  ATOD_RETURN_IF_ERROR(r.status());
  CheckHeads(c, r);
  ATOD_RETURN_IF_ERROR(r.status());
  c.source = text;
  return c;
}

namespace {

// A run or a checkpoint holds models and is none.
absl::Status RefuseRun(const std::string& dir) {
  std::string found, model;
  if (model = CheckpointFolder(dir).model(); fs::is_directory(model)) {
    found = "a checkpoint";
  } else if (const RunFolder run(dir); fs::is_directory(run.checkpoints())) {
    found = "a run";
    model = run.last().model();
  } else {
    return absl::OkStatus();
  }
  return BadInput(
      {.file = dir,
       .field = "model",
       .found = found,
       .expected = absl::StrCat("the folder of a model, such as ", model)});
}

}  // namespace

absl::StatusOr<ModelConfig> ReadModelConfig(const std::string& dir) {
  const std::string path = dir + "/config.json";
  if (!fs::exists(path)) ATOD_RETURN_IF_ERROR(RefuseRun(dir));
  ATOD_ASSIGN_OR_RETURN(const std::string text, ReadFile(path));
  return ParseModelConfig(text, path);
}

std::string ModelConfigJson(const ModelConfig& c, const std::string& dtype) {
  using OrderedJson = nlohmann::ordered_json;
  if (!c.source.empty()) {
    OrderedJson json = OrderedJson::parse(c.source, nullptr, false);
    // Its name until transformers 4.55, and since.
    bool said = false, same = true;
    for (const char* key : {"torch_dtype", "dtype"}) {
      if (!json.contains(key)) continue;
      said = true;
      same = same && json[key] == dtype;
      json[key] = dtype;
    }
    if (said && same) return c.source;
    if (!said) json["torch_dtype"] = dtype;
    return json.dump(2) + "\n";
  }
  const bool experts = c.num_experts > 0;
  OrderedJson json = {
      {"architectures", {experts ? "Qwen3MoeForCausalLM" : "Qwen3ForCausalLM"}},
      {"model_type", experts ? "qwen3_moe" : "qwen3"},
      {"vocab_size", c.vocab_size + c.padding_rows},
      {"hidden_size", c.hidden_size},
      {"intermediate_size", c.intermediate_size},
      {"num_hidden_layers", c.num_hidden_layers},
      {"num_attention_heads", c.num_attention_heads},
      {"num_key_value_heads", c.num_key_value_heads},
      {"head_dim", c.head_dim},
      {"max_position_embeddings", c.max_position_embeddings},
      {"rms_norm_eps", c.rms_norm_eps},
      {"rope_theta", c.rope_theta},
      {"tie_word_embeddings", c.tie_word_embeddings},
      {"hidden_act", "silu"},
      {"attention_bias", false},
      {"attention_dropout", 0.0},
      {"use_sliding_window", false},
      {"eos_token_id", nullptr},
      {"torch_dtype", dtype}};
  if (experts) {
    json["num_experts"] = c.num_experts;
    json["num_experts_per_tok"] = c.num_experts_per_tok;
    json["moe_intermediate_size"] = c.moe_intermediate_size;
    json["norm_topk_prob"] = c.norm_topk_prob;
    json["decoder_sparse_step"] = 1;
    json["mlp_only_layers"] = OrderedJson::array();
  }
  return json.dump(2) + "\n";
}

std::string ArchHash(const ModelConfig& c) {
  const bool experts = c.num_experts > 0;
  std::string text = absl::StrJoin(
      {absl::StrCat(experts ? "qwen3_moe" : "qwen3"),
       absl::StrCat(c.vocab_size), absl::StrCat(c.hidden_size),
       absl::StrCat(experts ? c.moe_intermediate_size : c.intermediate_size),
       absl::StrCat(c.num_hidden_layers), absl::StrCat(c.num_attention_heads),
       absl::StrCat(c.num_key_value_heads), absl::StrCat(c.head_dim),
       absl::StrCat(c.rms_norm_eps), absl::StrCat(c.rope_theta),
       absl::StrCat(c.tie_word_embeddings)},
      " ");
  if (experts)
    absl::StrAppend(&text, " ", c.num_experts, " ", c.num_experts_per_tok, " ",
                    c.norm_topk_prob);
  return HashHex(text);
}

namespace {

// Gate, up and down of one layer, in `specs` behind its attention.
void AddFeedForward(const ModelConfig& c, const std::string& layer,
                    std::vector<ParameterSpec>& specs) {
  const std::string p = layer + "mlp.";
  const auto add = [&](const std::string& of, const char* name, int64_t rows,
                       int64_t columns) {
    specs.push_back({absl::StrCat(of, name, ".weight"), {rows, columns}});
  };
  const auto expert = [&](int64_t e) {
    return absl::StrCat(p, "experts.", e, ".");
  };
  const int64_t h = c.hidden_size;
  if (c.num_experts == 0) {
    add(p, "gate_proj", c.intermediate_size, h);
    add(p, "up_proj", c.intermediate_size, h);
    add(p, "down_proj", h, c.intermediate_size);
    return;
  }
  const int64_t f = c.moe_intermediate_size;
  add(p, "gate", c.num_experts, h);
  for (int64_t e = 0; e < c.num_experts; ++e) {
    add(expert(e), "gate_proj", f, h);
    add(expert(e), "up_proj", f, h);
  }
  for (int64_t e = 0; e < c.num_experts; ++e) add(expert(e), "down_proj", h, f);
}

}  // namespace

std::vector<ParameterSpec> ParameterSpecs(const ModelConfig& c) {
  const int64_t q = c.num_attention_heads * c.head_dim;
  const int64_t kv = c.num_key_value_heads * c.head_dim;
  std::vector<ParameterSpec> specs{
      {"model.embed_tokens.weight", {c.vocab_size, c.hidden_size}}};
  for (int64_t i = 0; i < c.num_hidden_layers; ++i) {
    const std::string p = absl::StrCat("model.layers.", i, ".");
    specs.push_back({p + "input_layernorm.weight", {c.hidden_size}});
    specs.push_back({p + "self_attn.q_proj.weight", {q, c.hidden_size}});
    specs.push_back({p + "self_attn.k_proj.weight", {kv, c.hidden_size}});
    specs.push_back({p + "self_attn.v_proj.weight", {kv, c.hidden_size}});
    specs.push_back({p + "self_attn.q_norm.weight", {c.head_dim}});
    specs.push_back({p + "self_attn.k_norm.weight", {c.head_dim}});
    specs.push_back({p + "self_attn.o_proj.weight", {c.hidden_size, q}});
    specs.push_back({p + "post_attention_layernorm.weight", {c.hidden_size}});
    AddFeedForward(c, p, specs);
  }
  specs.push_back({"model.norm.weight", {c.hidden_size}});
  if (!c.tie_word_embeddings)
    specs.push_back({"lm_head.weight", {c.vocab_size, c.hidden_size}});
  return specs;
}

}  // namespace atod::model
