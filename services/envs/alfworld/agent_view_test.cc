#include "services/envs/alfworld/agent_view.h"

#include "gtest/gtest.h"

namespace atod::envs {
namespace {

constexpr char kIntro[] =
    "-= Welcome to TextWorld, ALFRED! =-\n\nYou are in the middle of a room. "
    "Looking quickly around you, you see a fridge 1, a drawer 1, a countertop "
    "1, and a microwave 1.\n\nYour task is to: cool some apple and put it in "
    "countertop.";
constexpr char kTask[] = "cool some apple and put it in countertop.";

class AgentViewTest : public ::testing::Test {
 protected:
  std::string Field(const std::string& name) { return view_.Fields().at(name); }
  AgentView view_{kIntro, kTask};
};

TEST_F(AgentViewTest, AtTheStartEverythingIsNew) {
  EXPECT_EQ(Field("unchecked"),
            "fridge 1, drawer 1, countertop* 1, microwave 1");
  EXPECT_EQ(Field("checked"), "nothing");
  EXPECT_EQ(Field("holding"), "nothing");
  EXPECT_EQ(Field("recent"), "nothing");
  EXPECT_EQ(Field("text"), "start.");
}

TEST_F(AgentViewTest, OnlySeenContentsAreChecked) {
  view_.Observe("go to fridge 1",
                "You arrive at fridge 1. The fridge 1 is "
                "closed.");
  EXPECT_EQ(Field("checked"), "nothing");
  view_.Observe("open fridge 1",
                "You open the fridge 1. The fridge 1 is open. In it, you see a "
                "apple 1, and a fork 1.");
  EXPECT_EQ(Field("checked"), "fridge 1");
  EXPECT_EQ(Field("unchecked"), "drawer 1, countertop* 1, microwave 1");
  EXPECT_EQ(Field("recent"), "go to fridge 1, open fridge 1");
  EXPECT_EQ(Field("text"),
            "You open the fridge 1. The fridge 1 is open. In it, you see a "
            "apple* 1, and a fork 1.");
  view_.Observe("go to countertop 1",
                "You arrive at countertop 1. On the countertop 1, you see "
                "nothing.");
  EXPECT_EQ(Field("checked"), "fridge 1, countertop* 1");
  // The 2020 grammar names the place by its number.
  view_.Observe("go to drawer 1",
                "You arrive at loc 3. On the drawer 1, you see a pen 1.");
  EXPECT_EQ(Field("unchecked"), "microwave 1");
  view_.Observe("open microwave 1",
                "The microwave 1 is open. In it, you see nothing.");
  EXPECT_EQ(Field("checked"), "nothing");
}

TEST_F(AgentViewTest, WhatWasTreatedKeepsItsWord) {
  view_.Observe("go", "On the drawer 1, you see a apple 1.");
  view_.Observe("take", "You pick up the apple 1 from the drawer 1.");
  EXPECT_EQ(Field("holding"), "apple* 1");
  EXPECT_EQ(Field("checked"), "nothing");
  view_.Observe("cool", "You cool the apple 1 using the fridge 1.");
  EXPECT_EQ(Field("holding"), "cool apple* 1");
  view_.Observe("go", "On the drawer 1, you see nothing.");
  view_.Observe("move", "You move the apple 1 to the drawer 1.");
  EXPECT_EQ(Field("holding"), "nothing");
  EXPECT_EQ(Field("checked"), "nothing");
  view_.Observe("take", "You pick up the apple 1 from the drawer 1.");
  EXPECT_EQ(Field("holding"), "cool apple* 1");
}

TEST_F(AgentViewTest, CommandsWithLineBreaksStayOneLine) {
  view_.Observe("a\nb", "Nothing happens.");
  view_.Observe("", "Nothing happens.");
  EXPECT_EQ(Field("recent"), "a b");
  EXPECT_EQ(Field("text"), "Nothing happens.");
}

TEST_F(AgentViewTest, StarsFollowWholeWordsBeforeNumbers) {
  view_.Observe("x", "a pineapple 1, a apple 12, apple, and apples 3");
  EXPECT_EQ(Field("text"), "a pineapple 1, a apple* 12, apple, and apples 3");
}

}  // namespace
}  // namespace atod::envs
