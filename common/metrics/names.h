#pragma once

// Every number that ATOD reports, once: dashboards, alert rules and
// docs/operations.md are checked against these tables.

#include <string>
#include <string_view>

namespace atod::metrics {

// A number of one step: TensorBoard tag, key in metrics.jsonl (timings.jsonl
// when it is MeasuredByClock), and Prometheus gauge
// PrometheusName(tag){run="NAME"}. A tag that ends in "/*" stands for one tag a
// task category.
struct StepTag {
  const char* tag;
  const char* help;  // with the unit when it has one
};

inline constexpr StepTag kStepTags[] = {
    // The two coefficients and the two signals that they weigh.
    {"hybrid/kl_coef", "kappa, coefficient of the teacher's signal (Eq. 11)"},
    {"hybrid/rl_coef", "rho, coefficient of the task reward (Eq. 12)"},
    {"hybrid/opd_signal_abs_mean",
     "Mean over tokens of |kappa w Delta|, the teacher's signal"},
    {"hybrid/rl_signal_abs_mean",
     "Mean over tokens of |rho A_GRPO|, the reward's signal"},
    {"hybrid/opd_rl_ratio",
     "Teacher's signal over the reward's; absent when every group is flat"},
    {"hybrid/teacher_gap_abs_mean",
     "Mean over tokens of |log pi_T - log pi_old|, nats"},
    {"hybrid/flat_group_ratio", "Share of groups whose rewards are all equal"},
    {"hybrid/singleton_groups",
     "Groups of one trajectory, or of one turn when statistics run over turns"},
    {"hybrid/clamped_tokens", "Tokens whose Delta the clamp cut (delta_clamp)"},
    {"health/dead_opd_signal",
     "1: kappa is above 0 and the teacher's signal is dead for several steps"},
    {"health/dead_rl_signal",
     "1: rho is above 0 and the reward's signal is dead for several steps"},
    // Turn weights.
    {"tdur/active_ratio", "Share of trajectories whose turns are weighted"},
    {"tdur/weight_mean", "Mean weight of a turn"},
    {"tdur/disagreement", "Mean over turns of d, student against teacher"},
    {"tdur/uncertainty", "Mean over turns of h, the student's surprise"},
    // Episodes of training.
    {"episode/reward", "Mean reward of an episode"},
    {"episode/length", "Mean length of an episode, turns"},
    {"episode/success_rate", "Share of episodes that solved their task"},
    {"episode/success_rate/*", "The same by task category"},
    {"episode/errors",
     "Samples left out because their episodes ended in errors"},
    {"episode/errors_prompt", "Of these: the prompt does not fit"},
    {"episode/errors_template", "The prompt cannot be rendered"},
    {"episode/errors_environment", "A fault of the environment while playing"},
    {"episode/errors_task", "The task cannot be started"},
    {"episode/errors_teacher", "The teacher's scores cannot be had"},
    {"episode/errors_engine", "The student cannot sample"},
    {"episode/dropped",
     "Samples left out for any reason: errors, refused trajectories, leases "
     "given back"},
    {"episode/valid_action_ratio", "Share of turns with a well-formed action"},
    {"episode/admissible_ratio",
     "Share of turns with an action that the environment offers"},
    {"response_length/mean", "Mean length of a response, tokens"},
    {"response_length/clip_ratio", "Share of responses cut at max_tokens"},
    {"prompt_length/mean", "Mean length of a prompt, tokens"},
    // Evaluation on the panel.
    {"val/success_rate", "Share solved of the panel tasks that were played"},
    {"val/tasks", "Panel tasks that were played: what the means are over"},
    {"val/errors", "Panel tasks left out because they ended in errors"},
    {"val/dropped", "Panel tasks left out for any reason"},
    {"val/success_rate/*", "The same by task category"},
    {"val/success_rate_mean_last",
     "Mean of the last evaluations (eval.mean_last)"},
    {"val/success_rate_best", "Best evaluation so far"},
    {"val/reward", "Mean reward on the panel"},
    {"val/length", "Mean length on the panel, turns"},
    // Updates.
    {"actor/entropy", "Mean over tokens of the student's entropy, nats"},
    {"actor/pg_loss", "Policy loss"},
    {"actor/pg_clipfrac", "Share of tokens whose ratio is clipped"},
    {"actor/ppo_kl", "Mean over tokens of log pi_old - log pi, nats"},
    {"actor/ratio_mean", "Mean over tokens of pi / pi_old"},
    {"actor/ratio_max", "Largest pi / pi_old"},
    {"actor/pg_clipfrac_lower",
     "Share of tokens that the dual clip holds (dual_clip)"},
    {"actor/entropy_loss", "Mean entropy as the bonus sees it (entropy_coef)"},
    {"actor/kl_loss",
     "Mean estimate of the KL to the reference model (kl_loss_coef)"},
    {"actor/sdar_loss", "Mean of SDAR's gated gap, before lambda"},
    {"actor/grad_norm", "Gradient norm before clipping"},
    {"actor/lr", "Learning rate"},
    {"actor/updates", "Optimiser updates of the step, skipped ones too"},
    {"actor/sequence_tokens",
     "Tokens of the step's sequences, what is context included"},
    {"actor/skipped_updates", "Updates left out, gradient not finite"},
    // How far rollouts are from the learner.
    {"rollout/mismatch_kl",
     "Mean over tokens of log pi_rollout - log pi_old, nats"},
    {"rollout/mismatch_abs_mean",
     "Mean over tokens of |log pi_rollout - log pi_old|, nats"},
    {"rollout/mismatch_abs_max",
     "Largest |log pi_rollout - log pi_old| of a token, nats"},
    {"rollout/staleness", "Mean versions between sampling and update"},
    // Where the time goes.
    {"timing/step_seconds", "Whole step"},
    {"timing/rollout_seconds", "Waiting for the step's trajectories"},
    {"timing/old_logprob_seconds", "Recomputing old log-probs"},
    {"timing/advantage_seconds", "Turn weights, statistics, advantages"},
    {"timing/update_seconds", "Forward, backward and optimiser"},
    {"timing/publish_seconds", "Publishing the weights"},
    {"timing/eval_seconds", "Evaluation"},
    {"timing/checkpoint_seconds", "Checkpoint"},
    {"throughput/tokens_per_second", "Trained tokens over the step's time"},
    {"throughput/episodes_per_second", "Episodes over the step's time"},
    {"memory/peak_bytes", "Peak resident memory of the learner"},
};

// Whether a tag is a measurement of this machine and hour, which another life
// of the same run would not repeat: timing/*, throughput/*, memory/*.
bool MeasuredByClock(std::string_view tag);

// "hybrid/kl_coef" -> "atod_hybrid_kl_coef". What Prometheus does not allow in
// the part of a tag that data names (a category) becomes "_xHH_", so that
// "a-b" and "a b" stay two.
std::string PrometheusName(std::string_view tag);

enum class Kind { kCounter, kGauge, kHistogram };

// A metric of a service; register it through Registry.
struct ServiceMetric {
  const char* name;
  Kind kind;
  const char* help;
  const char* labels = "";  // names by comma
};

// Every process with a model.
inline constexpr ServiceMetric kModelInfo{
    "atod_model_info", Kind::kGauge,
    "1; a model that the process has open, and what computes it",
    "role,model,back_end,device,dtype"};

// Rollout workers.
inline constexpr ServiceMetric kRolloutTokens{"atod_rollout_tokens_total",
                                              Kind::kCounter, "Tokens sampled"};
inline constexpr ServiceMetric kRolloutPromptTokens{
    "atod_rollout_prompt_tokens_total", Kind::kCounter, "Prompt tokens read"};
inline constexpr ServiceMetric kRolloutCutTokens{
    "atod_rollout_cut_prompt_tokens_total", Kind::kCounter,
    "Tokens of prompts that did not fit and were left out"};
inline constexpr ServiceMetric kRolloutContextEnds{
    "atod_rollout_context_ends_total", Kind::kCounter,
    "Episodes of the growing layout that ended because their next turn did not "
    "fit the context"};
inline constexpr ServiceMetric kRolloutEpisodes{
    "atod_rollout_episodes_total", Kind::kCounter, "Episodes handed in",
    "purpose"};
inline constexpr ServiceMetric kRolloutErrors{
    "atod_rollout_errors_total", Kind::kCounter,
    "Episodes that ended in an error, and leases returned", "cause"};
inline constexpr ServiceMetric kRolloutSlots{"atod_rollout_slots", Kind::kGauge,
                                             "Episodes it can play at once"};
inline constexpr ServiceMetric kRolloutSlotsBusy{
    "atod_rollout_slots_busy", Kind::kGauge, "Episodes under way"};
inline constexpr ServiceMetric kRolloutBatchRows{
    "atod_rollout_batch_rows", Kind::kHistogram, "Rows of one decoding pass"};
inline constexpr ServiceMetric kRolloutEngineSeconds{
    "atod_rollout_engine_seconds_total", Kind::kCounter,
    "Computing in the engine"};
inline constexpr ServiceMetric kRolloutIdleSeconds{
    "atod_rollout_idle_seconds_total", Kind::kCounter,
    "Waiting with nothing to compute"};
inline constexpr ServiceMetric kRolloutEnvSeconds{
    "atod_rollout_env_seconds", Kind::kHistogram,
    "Waiting for the environment, a turn"};
inline constexpr ServiceMetric kRolloutTeacherSeconds{
    "atod_rollout_teacher_seconds", Kind::kHistogram,
    "Waiting for the teacher, a call"};
inline constexpr ServiceMetric kRolloutComputedTokens{
    "atod_rollout_computed_prompt_tokens_total", Kind::kCounter,
    "Prompt tokens that the engine computed"};
inline constexpr ServiceMetric kRolloutReusedTokens{
    "atod_rollout_reused_prompt_tokens_total", Kind::kCounter,
    "Prompt tokens whose keys a session or group had"};
inline constexpr ServiceMetric kRolloutCacheTokens{
    "atod_rollout_cache_tokens", Kind::kGauge,
    "Tokens whose keys and values there is room for"};
inline constexpr ServiceMetric kRolloutCacheTokensUsed{
    "atod_rollout_cache_tokens_used", Kind::kGauge,
    "Of these, taken by requests and idle sessions"};
inline constexpr ServiceMetric kRolloutWeightSyncSeconds{
    "atod_rollout_weight_sync_seconds", Kind::kHistogram,
    "Fetching and installing a weight version"};
inline constexpr ServiceMetric kRolloutWeightVersion{
    "atod_rollout_weight_version", Kind::kGauge, "Number of the held weights"};

// Teacher.
inline constexpr ServiceMetric kTeacherTokens{"atod_teacher_tokens_total",
                                              Kind::kCounter, "Tokens read"};
inline constexpr ServiceMetric kTeacherCachedTokens{
    "atod_teacher_cached_tokens_total", Kind::kCounter,
    "Of the tokens read, those of a session that were not computed again"};
inline constexpr ServiceMetric kTeacherScored{
    "atod_teacher_scored_tokens_total", Kind::kCounter, "Log-probs returned"};
inline constexpr ServiceMetric kTeacherRequests{
    "atod_teacher_requests_total", Kind::kCounter, "Calls answered", "code"};
inline constexpr ServiceMetric kTeacherQueue{"atod_teacher_queue_items",
                                             Kind::kGauge, "Sequences waiting"};
inline constexpr ServiceMetric kTeacherBatchTokens{
    "atod_teacher_batch_tokens", Kind::kHistogram, "Tokens of one batch"};
inline constexpr ServiceMetric kTeacherQueueSeconds{
    "atod_teacher_queue_seconds", Kind::kHistogram,
    "From arrival to computing, a sequence"};
inline constexpr ServiceMetric kTeacherComputeSeconds{
    "atod_teacher_compute_seconds", Kind::kHistogram, "Computing one batch"};

// Environments.
inline constexpr ServiceMetric kEnvsSteps{
    "atod_envs_steps_total", Kind::kCounter, "Turns played", "env"};
inline constexpr ServiceMetric kEnvsResets{
    "atod_envs_resets_total", Kind::kCounter, "Episodes started", "env"};
inline constexpr ServiceMetric kEnvsErrors{
    "atod_envs_errors_total", Kind::kCounter, "Calls refused", "code"};
inline constexpr ServiceMetric kEnvsEpisodes{"atod_envs_episodes", Kind::kGauge,
                                             "Episodes alive"};
inline constexpr ServiceMetric kEnvsExpired{
    "atod_envs_expired_total", Kind::kCounter,
    "Episodes freed because nobody asked about them"};
inline constexpr ServiceMetric kEnvsStepSeconds{
    "atod_envs_step_seconds", Kind::kHistogram, "Answering one turn"};

// Learner.
inline constexpr ServiceMetric kLearnerStep{"atod_learner_step", Kind::kGauge,
                                            "Steps done", "run"};
inline constexpr ServiceMetric kLearnerSteps{"atod_learner_steps", Kind::kGauge,
                                             "Steps of the run", "run"};
inline constexpr ServiceMetric kLearnerStepTime{
    "atod_learner_last_step_timestamp_seconds", Kind::kGauge,
    "When the last step ended, Unix time", "run"};
inline constexpr ServiceMetric kLearnerWorkers{
    "atod_learner_workers", Kind::kGauge, "Rollout workers connected"};
inline constexpr ServiceMetric kLearnerInFlight{
    "atod_learner_in_flight", Kind::kGauge, "Samples leased, not handed in"};
inline constexpr ServiceMetric kLearnerTrajectories{
    "atod_learner_trajectories_total", Kind::kCounter, "Trajectories handed in",
    "verdict"};
inline constexpr ServiceMetric kLearnerWeightVersion{
    "atod_learner_weight_version", Kind::kGauge,
    "Number of the newest weights"};
inline constexpr ServiceMetric kLearnerIncarnation{
    "atod_learner_incarnation", Kind::kGauge, "Life of the run, from 1"};

inline constexpr const ServiceMetric* kServiceMetrics[] = {
    &kModelInfo,
    &kRolloutTokens,
    &kRolloutPromptTokens,
    &kRolloutCutTokens,
    &kRolloutContextEnds,
    &kRolloutEpisodes,
    &kRolloutErrors,
    &kRolloutSlots,
    &kRolloutSlotsBusy,
    &kRolloutBatchRows,
    &kRolloutEngineSeconds,
    &kRolloutIdleSeconds,
    &kRolloutEnvSeconds,
    &kRolloutTeacherSeconds,
    &kRolloutComputedTokens,
    &kRolloutReusedTokens,
    &kRolloutCacheTokens,
    &kRolloutCacheTokensUsed,
    &kRolloutWeightSyncSeconds,
    &kRolloutWeightVersion,
    &kTeacherTokens,
    &kTeacherCachedTokens,
    &kTeacherScored,
    &kTeacherRequests,
    &kTeacherQueue,
    &kTeacherBatchTokens,
    &kTeacherQueueSeconds,
    &kTeacherComputeSeconds,
    &kEnvsSteps,
    &kEnvsResets,
    &kEnvsErrors,
    &kEnvsEpisodes,
    &kEnvsExpired,
    &kEnvsStepSeconds,
    &kLearnerStep,
    &kLearnerSteps,
    &kLearnerStepTime,
    &kLearnerWorkers,
    &kLearnerInFlight,
    &kLearnerTrajectories,
    &kLearnerWeightVersion,
    &kLearnerIncarnation,
};

}  // namespace atod::metrics
