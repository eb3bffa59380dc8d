#pragma once

#include <string_view>

#include "atod/v1/env.pb.h"
#include "services/envs/env_caller.h"
#include "services/envs/environment.h"

namespace atod::envs {

// Between the plain structs and their messages, field by field.

v1::PromptSpec ToProto(const PromptSpec& spec);
v1::EnvDescription ToProto(const EnvDescription& description);
v1::Task ToProto(const TaskInfo& task);
v1::Observation ToProto(const Observation& observation);
v1::StepReply ToProto(const StepResult& result);
v1::ResetRequest ToProto(const ResetRequest& request);
v1::ResetReply ToProto(const ResetResult& result);

PromptSpec FromProto(const v1::PromptSpec& spec);
EnvDescription FromProto(const v1::EnvDescription& description);
TaskInfo FromProto(const v1::Task& task);
Observation FromProto(const v1::Observation& observation);
StepResult FromProto(const v1::StepReply& reply);
ResetRequest FromProto(const v1::ResetRequest& request);
ResetResult FromProto(const v1::ResetReply& reply);

}  // namespace atod::envs
