#include "services/cli/chat_command.h"

#include <signal.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <iostream>
#include <memory>
#include <string>

#include "common/base/problem.h"
#include "common/base/status_macros.h"
#include "common/engine/engine.h"
#include "common/model/model_config.h"
#include "common/model/threads.h"
#include "common/tokenizer/tokenizer.h"
#include "services/cli/back_end_flags.h"
#include "services/cli/chat.h"

namespace atod::cli {
namespace {

struct ChatFlags {
  std::string model;
  BackEndFlags back_end;
  ChatSettings settings;
  bool no_thinking = false;
  uint32_t max_context = 8192;
};

volatile sig_atomic_t interrupted = 0;

// Ctrl-C raises the flag; a read that waits for a line ends with it.
void CatchInterrupts() {
  struct sigaction action = {};
  action.sa_handler = [](int) { interrupted = 1; };
  sigaction(SIGINT, &action, nullptr);
}

void Print(std::string_view text) {
  std::fwrite(text.data(), 1, text.size(), stdout);
  std::fflush(stdout);
}

// One line of the user. False: no more of them.
bool ReadLine(bool terminal, std::string& line) {
  if (terminal) Print("> ");
  return std::getline(std::cin, line) && interrupted == 0;
}

absl::StatusOr<int> RunChat(const ChatFlags& flags) {
  ATOD_ASSIGN_OR_RETURN(const std::unique_ptr<Tokenizer> tokenizer,
                        Tokenizer::Load(flags.model));
  ATOD_RETURN_IF_ERROR(tokenizer->template_status());
  ATOD_ASSIGN_OR_RETURN(const model::ModelConfig config,
                        model::ReadModelConfig(flags.model));
  model::SetComputeThreads(flags.back_end.threads);
  engine::EngineOptions options;
  options.model = OpenOptionsOf(flags.back_end);
  options.model.max_context =
      std::min<int64_t>(flags.max_context, config.max_position_embeddings);
  options.max_slots = 1;
  ATOD_ASSIGN_OR_RETURN(const std::unique_ptr<engine::ModelEngine> engine,
                        engine::OpenEngine(flags.model, options));
  PrintBackEnd(engine->back_end());
  ChatSettings settings = flags.settings;
  settings.thinking = !flags.no_thinking;
  Chat chat(*engine, *tokenizer, settings);

  const bool terminal = isatty(STDIN_FILENO) == 1;
  if (terminal)
    std::fprintf(stderr,
                 "/clear forgets what was said; Ctrl-C stops an answer, "
                 "Ctrl-D ends\n");
  CatchInterrupts();
  int status = 0;
  std::string line;
  while (ReadLine(terminal, line)) {
    if (line.empty()) continue;
    if (line == "/clear") {
      chat.Clear();
      continue;
    }
    const auto answer = chat.Say(line, Print, [] { return interrupted != 0; });
    interrupted = 0;
    Print("\n");
    if (!answer.ok()) {
      std::fprintf(stderr, "error: %s\n",
                   std::string(answer.status().message()).c_str());
      status = 2;
    } else if (answer->finish != engine::FinishReason::kStop) {
      std::fprintf(stderr, "(%s)\n",
                   answer->finish == engine::FinishReason::kLength
                       ? "cut at --max-tokens or --max-context"
                       : "stopped");
    }
  }
  if (terminal) Print("\n");
  return terminal ? 0 : status;
}

}  // namespace

void AddChatCommand(Command app) {
  auto flags = std::make_shared<ChatFlags>();
  flags->settings.sampling = {
      .temperature = 0.6f, .top_p = 0.95f, .top_k = 20, .max_tokens = 2048};
  Command command = app.Add("chat", "Talk with a model in the terminal",
                            [flags] { return RunChat(*flags); });
  command.Arg("--model", flags->model, "model folder").Required();
  command.Flag("--no-thinking", flags->no_thinking,
               "the model answers without thinking first");
  command.Arg("--system", flags->settings.system, "system message (none)");
  engine::SamplingParams& s = flags->settings.sampling;
  command.Arg("--temperature", s.temperature,
              "divides the logits; 0 is greedy (0.6)");
  command.Arg("--top-p", s.top_p, "nucleus mass (0.95)");
  command.Arg("--top-k", s.top_k, "candidates, 0: all (20)");
  command.Arg("--max-tokens", s.max_tokens, "longest answer (2048)");
  command
      .Arg("--max-context", flags->max_context,
           "longest conversation, tokens (8192)")
      .WholeNumber(16, 1 << 20);
  command.Arg("--seed", flags->settings.seed, "of the sampling noise (0)")
      .WholeNumber();
  AddBackEndFlags(command, flags->back_end);
}

}  // namespace atod::cli
