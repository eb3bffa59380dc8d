#include "services/cli/text_commands.h"

#include <cstdio>
#include <iostream>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "common/base/file.h"
#include "common/base/json.h"
#include "common/base/status_macros.h"
#include "common/prompt/household_prompts.h"
#include "common/prompt/paper_prompts.h"
#include "common/prompt/released.h"
#include "common/prompt/render.h"
#include "common/tokenizer/bpe_trainer.h"
#include "common/tokenizer/chat_template.h"
#include "common/tokenizer/tokenizer.h"
#include "services/cli/command.h"
#include "services/cli/json_lines.h"
#include "services/envs/alfworld/agent_view.h"

namespace atod::cli {
namespace {

using nlohmann::json;

// A string at `key`; the empty one when it is absent and not required.
absl::StatusOr<std::string> StringAt(const json& object, const char* key,
                                     bool required) {
  const json value = object.is_object() ? object.value(key, json()) : json();
  if (value.is_null() && !required) return std::string();
  if (!value.is_string()) {
    return BadInput(
        {.field = key, .found = JsonPreview(value), .expected = "a string"});
  }
  return value.get<std::string>();
}

absl::StatusOr<int> Tokenize(const std::string& model, bool decode) {
  ATOD_ASSIGN_OR_RETURN(const auto tokenizer, Tokenizer::Load(model));
  ATOD_RETURN_IF_ERROR(
      ForEachLine(std::cin, "stdin", [&](const json& value) -> absl::Status {
        if (!decode) {
          if (!value.is_string()) {
            return BadInput({.field = "text",
                             .found = JsonPreview(value),
                             .expected = "a string"});
          }
          PrintLine(tokenizer->Encode(value.get_ref<const std::string&>()));
          return absl::OkStatus();
        }
        std::vector<int32_t> ids;
        if (!value.is_array()) {
          return BadInput({.field = "ids",
                           .found = JsonPreview(value),
                           .expected = "an array of ids"});
        }
        for (const json& id : value) {
          if (!id.is_number_integer() || id < 0 ||
              id >= tokenizer->vocab_size()) {
            return BadInput({.field = absl::StrCat("[", ids.size(), "]"),
                             .found = JsonPreview(id),
                             .expected = absl::StrCat(
                                 "an id below ", tokenizer->vocab_size())});
          }
          ids.push_back(id.get<int32_t>());
        }
        PrintLine(tokenizer->Decode(ids));
        return absl::OkStatus();
      }));
  return 0;
}

absl::StatusOr<std::vector<ChatMessage>> ReadMessages(const json& list) {
  if (!list.is_array()) {
    return BadInput({.file = "stdin",
                     .field = "messages",
                     .found = JsonPreview(list),
                     .expected = "an array"});
  }
  std::vector<ChatMessage> messages;
  for (const json& entry : list) {
    const std::string field = absl::StrCat("messages[", messages.size(), "]");
    if (!entry.is_object() || !entry.contains("role") ||
        !entry["role"].is_string() || !entry.contains("content") ||
        !entry["content"].is_string()) {
      return BadInput({.file = "stdin",
                       .field = field,
                       .found = JsonPreview(entry),
                       .expected = "an object with role and content"});
    }
    if (entry.contains("tool_calls") && !entry["tool_calls"].empty()) {
      return BadInput({.file = "stdin",
                       .field = field + ".tool_calls",
                       .found = JsonPreview(entry["tool_calls"]),
                       .expected = "none: tools are not supported"});
    }
    ChatMessage message{.role = entry["role"].get<std::string>(),
                        .content = entry["content"].get<std::string>()};
    const json reasoning = entry.value("reasoning_content", json());
    if (reasoning.is_string()) {
      message.reasoning_content = reasoning.get<std::string>();
    }
    messages.push_back(std::move(message));
  }
  return messages;
}

absl::StatusOr<int> ChatTemplate(const std::string& model, bool thinking) {
  ATOD_ASSIGN_OR_RETURN(const auto tokenizer, Tokenizer::Load(model));
  ATOD_RETURN_IF_ERROR(tokenizer->template_status());
  // Values one after the other, each on one line or many.
  while (std::cin >> std::ws && std::cin.peek() != EOF) {
    json list;
    try {
      std::cin >> list;
    } catch (const json::exception& e) {
      return BadInput({.file = "stdin",
                       .field = "messages",
                       .found = e.what(),
                       .expected = "a JSON array"});
    }
    ATOD_ASSIGN_OR_RETURN(const auto messages, ReadMessages(list));
    const absl::StatusOr<std::string> text =
        RenderChat(messages, {.thinking = thinking});
    if (!text.ok()) return WithFile(text.status(), "stdin");
    PrintLine(*text);
  }
  return 0;
}

absl::StatusOr<PromptSpec> FindPromptSpec(const std::string& env,
                                          const std::string& prompt_set) {
  if (prompt_set == "released") {
    return ReleasedPromptSpec(env == "textworld" ? "alfworld" : env);
  }
  if (env == "alfworld" || env == "textworld") {
    return prompt_set == "paper" ? PaperPromptSpec() : CompactPromptSpec();
  }
  if (prompt_set == "paper" && env == "webshop") {
    return PaperWebshopPromptSpec();
  }
  if (prompt_set == "paper") return PaperSearchPromptSpec();
  return BadInput(
      {.field = "--prompt-set",
       .found = prompt_set,
       .expected = "paper or released; compact is the household's"});
}

absl::StatusOr<PromptInputs> ReadPromptInputs(const json& row) {
  PromptInputs inputs;
  ATOD_ASSIGN_OR_RETURN(inputs.task, StringAt(row, "task", true));
  ATOD_ASSIGN_OR_RETURN(inputs.observation, StringAt(row, "observation", true));
  const json admissible = row.value("admissible", json::array());
  for (const json& action : admissible) {
    if (!action.is_string()) {
      return BadInput({.field = "admissible",
                       .found = JsonPreview(admissible),
                       .expected = "an array of strings"});
    }
    inputs.admissible.push_back(action.get<std::string>());
  }
  const json fields = row.value("fields", json::object());
  for (const auto& [name, text] : fields.items()) {
    if (!text.is_string()) {
      return BadInput({.field = absl::StrCat("fields.", name),
                       .found = JsonPreview(text),
                       .expected = "a string"});
    }
    inputs.fields[name] = text.get<std::string>();
  }
  const json history = row.value("history", json::array());
  for (const json& record : history) {
    HistoryRecord read;
    ATOD_ASSIGN_OR_RETURN(read.observation,
                          StringAt(record, "observation", true));
    ATOD_ASSIGN_OR_RETURN(read.action, StringAt(record, "action", true));
    inputs.history.push_back(std::move(read));
  }
  // "step" counts the turns played; with the whole history given, the number
  // of the current step (one more) means the same.
  const size_t played = inputs.history.size();
  const json step = row.value("step", json(played));
  if (!step.is_number_integer() || step < played || step > UINT32_MAX) {
    return BadInput({.field = "step",
                     .found = JsonPreview(step),
                     .expected = absl::StrCat("a whole number from ", played,
                                              ", the length of the history")});
  }
  inputs.turn_index = step.get<uint32_t>();
  if (inputs.turn_index == played + 1) inputs.turn_index = played;
  return inputs;
}

// The fields as the household environment would have kept them over the
// episode, when the history is whole.
std::map<std::string, std::string> HouseholdFields(const PromptInputs& inputs) {
  const std::vector<HistoryRecord>& history = inputs.history;
  envs::AgentView view(
      history.empty() ? inputs.observation : history[0].observation,
      inputs.task);
  for (size_t i = 0; i < history.size(); ++i) {
    view.Observe(history[i].action, i + 1 < history.size()
                                        ? history[i + 1].observation
                                        : inputs.observation);
  }
  return view.Fields();
}

absl::StatusOr<int> Prompt(const std::string& env,
                           const std::string& prompt_set,
                           const std::string& input) {
  ATOD_ASSIGN_OR_RETURN(const PromptSpec spec, FindPromptSpec(env, prompt_set));
  ATOD_RETURN_IF_ERROR(
      ForEachLineOf(input, [&](const json& row) -> absl::Status {
        ATOD_ASSIGN_OR_RETURN(PromptInputs inputs, ReadPromptInputs(row));
        if (spec.name == "compact" && !row.contains("fields")) {
          inputs.fields = HouseholdFields(inputs);
        }
        PrintLine({{"prompt", RenderPrompt(spec, inputs)}});
        return absl::OkStatus();
      }));
  return 0;
}

// A text, or a row of atod sft: prompt and response are tokenized apart from
// each other.
absl::Status AddRow(const json& row, BpeTrainer& trainer) {
  if (row.is_object() && row.contains("turns")) {
    if (!row["turns"].is_array())
      return BadInput(
          {"", "turns", 0, JsonPreview(row["turns"]), "a list of turns"});
    for (const json& turn : row["turns"])
      ATOD_RETURN_IF_ERROR(AddRow(turn, trainer));
    return absl::OkStatus();
  }
  const bool plain = row.is_object() && row.contains("text");
  for (const char* key : {"text", "prompt", "response"}) {
    if (plain != (key == std::string_view("text"))) continue;
    ATOD_ASSIGN_OR_RETURN(const std::string part, StringAt(row, key, true));
    trainer.Add(part);
  }
  return absl::OkStatus();
}

absl::StatusOr<int> TrainTokenizer(const std::vector<std::string>& data,
                                   const BpeTrainer::Options& options,
                                   const std::string& out) {
  BpeTrainer trainer(options);
  for (const std::string& path : data) {
    ATOD_RETURN_IF_ERROR(ForEachLineOf(
        path, [&](const json& row) { return AddRow(row, trainer); }));
  }
  ATOD_RETURN_IF_ERROR(trainer.Write(out));
  ATOD_ASSIGN_OR_RETURN(const auto tokenizer, Tokenizer::Load(out));
  std::printf("%s: %d tokens, hash %s\n", out.c_str(), tokenizer->vocab_size(),
              tokenizer->hash().c_str());
  return 0;
}

}  // namespace

void AddTextCommands(Command app) {
  struct Flags {
    std::string model, env, prompt_set = "paper", input, out, split = "gpt2";
    std::vector<std::string> data;
    bool decode = false, no_thinking = false;
    BpeTrainer::Options trainer;
  };
  const auto flags = std::make_shared<Flags>();

  Command tokenize =
      app.Add("tokenize", "Text to token ids: one JSON string a line on stdin",
              [flags] { return Tokenize(flags->model, flags->decode); });
  tokenize.Arg("--model", flags->model, "Folder with tokenizer.json")
      .Required();
  tokenize.Flag("--decode", flags->decode, "Ids to text");

  Command chat = app.Add(
      "chat-template",
      "Messages (a JSON list on stdin) to text in the model's chat format",
      [flags] { return ChatTemplate(flags->model, !flags->no_thinking); });
  chat.Arg("--model", flags->model, "Folder with tokenizer.json").Required();
  chat.Flag("--no-thinking", flags->no_thinking,
            "Put an empty thinking block into the generation prompt");

  Command prompt = app.Add(
      "prompt", "Render the prompt of one turn for each line of a file",
      [flags] { return Prompt(flags->env, flags->prompt_set, flags->input); });
  prompt.Arg("--env", flags->env, "Environment")
      .Required()
      .OneOf({"alfworld", "textworld", "webshop", "search"});
  prompt.Arg("--prompt-set", flags->prompt_set, "Prompt set")
      .OneOf({"paper", "released", "compact"})
      .ShowDefault();
  prompt
      .Arg("--input", flags->input,
           "JSONL: task, observation, admissible, history "
           "[{observation, action}], step (turns played), fields")
      .Required();

  Command train =
      app.Add("train-tokenizer", "Learn a byte-level BPE from texts", [flags] {
        flags->trainer.split =
            flags->split == "gpt2" ? SplitRule::kGpt2 : SplitRule::kQwen2;
        return TrainTokenizer(flags->data, flags->trainer, flags->out);
      });
  train
      .Arg("--data", flags->data,
           "JSONL files with text, or prompt and response")
      .Required();
  train
      .Arg("--vocab-size", flags->trainer.vocab_size,
           "Most ids: bytes, merges and special tokens")
      .Required();
  train
      .Arg("--min-frequency", flags->trainer.min_frequency,
           "Pairs that occur less often are not merged")
      .ShowDefault();
  train.Arg("--split", flags->split, "How text falls into pieces")
      .OneOf({"gpt2", "qwen2"})
      .ShowDefault();
  train.Arg("--out", flags->out, "Folder to write").Required();
}

}  // namespace atod::cli
