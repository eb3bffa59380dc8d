#pragma once

#include "services/envs/alfworld/game.h"

namespace atod::envs {

// For tests: a room of two boxes and a ball, in a domain of its own, so that
// nothing of the household domain can be relied on.
inline GameText TinyGame() {
  GameText text;
  text.domain = R"((define (domain tiny)
 (:types box ball actor)
 (:predicates (near ?a - actor ?b - box) (in ?o - ball ?b - box) (shut ?b - box)
              (has ?a - actor ?o - ball) (lit) (seen ?b - box))
 (:action walk :parameters (?a - actor ?from - box ?to - box)
  :precondition (near ?a ?from)
  :effect (and (not (near ?a ?from)) (near ?a ?to)))
 (:action grab :parameters (?a - actor ?o - ball ?b - box)
  :precondition (and (near ?a ?b) (in ?o ?b) (not (shut ?b)) (not (exists (?x - ball) (has ?a ?x))))
  :effect (and (has ?a ?o) (not (in ?o ?b))))
 (:action drop :parameters (?a - actor ?o - ball ?b - box)
  :precondition (and (has ?a ?o) (near ?a ?b) (or (not (shut ?b)) (lit)))
  :effect (and (not (has ?a ?o)) (in ?o ?b)))
 (:action openall :parameters (?a - actor)
  :precondition (exists (?b - box) (shut ?b))
  :effect (forall (?b - box) (when (shut ?b) (and (not (shut ?b)) (seen ?b)))))
 (:action flip :parameters (?a - actor) :precondition ()
  :effect (and (when (lit) (not (lit))) (when (not (lit)) (lit))))
 (:action boast :parameters (?a - actor)
  :precondition (forall (?b - box) (imply (shut ?b) (lit)))
  :effect (lit)))
)";
  text.problem = R"((define (problem p) (:domain tiny)
 (:objects me - actor Ball_bar_1 Ball_bar_2 - ball red_bar_1 blue_bar_1 - box)
 (:init (near me red_bar_1) (in Ball_bar_1 red_bar_1) (in Ball_bar_2 blue_bar_1)
        (shut blue_bar_1))
 (:goal (exists (?b - box) (exists (?x - ball) (exists (?y - ball)
   (and (not (= ?x ?y)) (in ?x ?b) (in ?y ?b)))))))
)";
  text.grammar = R"twl(# a comment
grammar :: """
{
  "intro": [{"rhs": "Here: [{b.name | shut(b:box)}] is shut. Your task is to: gather."}],
  "walked": [
    {"condition": "shut(to:box)", "rhs": "{to} is shut."},
    {"rhs": "In {to}: [{o.indefinite + ' ' + o.name | in(o:ball, to:box)}]."}
  ],
  "broken, never used": [{"rhs": "}"}],
  "list_empty": [{"rhs": "nothing"}],
  "list_separator": [{"rhs": ", "}],
  "list_last_separator": [{"rhs": ", and "}]
}
""";
action walk { template :: "walk to {to}"; feedback :: "#walked#"; }
action grab { template :: "grab {o}"; feedback :: "You have {o}, left: [{o | not_in(o:ball, b:box)}]."; }
action drop { template :: "drop {o}"; feedback :: "Dropped."; }
action openall { template :: "open all"; feedback :: "Open."; }
action flip { template :: "flip"; feedback :: "Click."; }
action boast { template :: "boast"; feedback :: "\nHa,\nha."; }
)twl";
  return text;
}

}  // namespace atod::envs
