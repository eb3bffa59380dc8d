#include "services/cli/report/report.h"

#include "gtest/gtest.h"
