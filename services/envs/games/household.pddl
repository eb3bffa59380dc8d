; Household: one agent in a room of furniture. Furniture holds things, some of
; it behind doors; the sink basin cleans, the microwave heats, the fridge
; cools and a lamp can be switched on. Players see the commands and sentences
; of ALFWorld's text games, so that an agent moves from one to the other.
(define (domain household)
  (:requirements :adl :typing)
  (:types agent spot furniture thing kind)

  (:predicates
    ; the room
    (stands ?f - furniture ?s - spot)
    (is_furniture ?f - furniture ?k - kind)
    (is_thing ?x - thing ?k - kind)
    (fits ?x - kind ?f - kind)             ; things of ?x may lie in ?f
    (has_door ?f - furniture)
    (ajar ?f - furniture)
    ; the agent
    (at ?a - agent ?s - spot)
    (carries ?a - agent ?x - thing)
    (hands_full ?a - agent)
    ; things
    (in ?x - thing ?f - furniture)
    (portable ?x - thing)
    (vessel ?x - thing)                    ; cups, plates: "a normal mug"
    (washable ?x - thing)
    (heatable ?x - thing)
    (coolable ?x - thing)
    (cuttable ?x - thing)
    (switchable ?x - thing)
    (blade ?k - kind)
    (washed ?x - thing)
    (hot ?x - thing)
    (cold ?x - thing)
    (cut ?x - thing)
    (lit ?x - thing)
    ; Looking changes nothing that matters; it is noted, because an action
    ; must change something.
    (noted ?e - object))

  ; ---- looking ------------------------------------------------------------
  (:action look
    :parameters (?a - agent ?s - spot)
    :precondition (at ?a ?s)
    :effect (noted ?s))

  (:action inventory
    :parameters (?a - agent)
    :precondition ()
    :effect (noted ?a))

  (:action help
    :parameters (?a - agent)
    :precondition ()
    :effect (noted ?a))

  (:action search
    :parameters (?a - agent ?f - furniture ?s - spot)
    :precondition (and (at ?a ?s) (stands ?f ?s))
    :effect (noted ?f))

  (:action inspect
    :parameters (?a - agent ?x - thing)
    :precondition (carries ?a ?x)
    :effect (noted ?x))

  ; ---- moving -------------------------------------------------------------
  (:action walk
    :parameters (?a - agent ?from - spot ?to - spot ?f - furniture)
    :precondition (and (at ?a ?from) (stands ?f ?to))
    :effect (and (not (at ?a ?from)) (at ?a ?to)))

  (:action open
    :parameters (?a - agent ?f - furniture ?s - spot)
    :precondition (and (at ?a ?s) (stands ?f ?s)
                       (has_door ?f) (not (ajar ?f)))
    :effect (ajar ?f))

  (:action close
    :parameters (?a - agent ?f - furniture ?s - spot)
    :precondition (and (at ?a ?s) (stands ?f ?s) (has_door ?f) (ajar ?f))
    :effect (not (ajar ?f)))

  (:action take
    :parameters (?a - agent ?x - thing ?f - furniture ?s - spot)
    :precondition (and (at ?a ?s) (stands ?f ?s) (in ?x ?f) (portable ?x)
                       (not (hands_full ?a))
                       (imply (has_door ?f) (ajar ?f)))
    :effect (and (carries ?a ?x) (hands_full ?a) (not (in ?x ?f))))

  (:action put
    :parameters (?a - agent ?x - thing ?f - furniture ?s - spot
                 ?xk - kind ?fk - kind)
    :precondition (and (at ?a ?s) (stands ?f ?s) (carries ?a ?x)
                       (is_thing ?x ?xk) (is_furniture ?f ?fk) (fits ?xk ?fk)
                       (imply (has_door ?f) (ajar ?f)))
    :effect (and (in ?x ?f) (not (carries ?a ?x)) (not (hands_full ?a))))

  ; ---- treating -----------------------------------------------------------
  ; As in ALFWorld, the appliance may stay closed and the thing in the hand.
  (:action wash
    :parameters (?a - agent ?x - thing ?f - furniture ?s - spot)
    :precondition (and (at ?a ?s) (stands ?f ?s) (carries ?a ?x)
                       (washable ?x) (is_furniture ?f sinkbasinkind))
    :effect (washed ?x))

  (:action warm
    :parameters (?a - agent ?x - thing ?f - furniture ?s - spot)
    :precondition (and (at ?a ?s) (stands ?f ?s) (carries ?a ?x)
                       (heatable ?x) (is_furniture ?f microwavekind))
    :effect (and (hot ?x) (not (cold ?x))))

  (:action chill
    :parameters (?a - agent ?x - thing ?f - furniture ?s - spot)
    :precondition (and (at ?a ?s) (stands ?f ?s) (carries ?a ?x)
                       (coolable ?x) (is_furniture ?f fridgekind))
    :effect (and (cold ?x) (not (hot ?x))))

  (:action switch
    :parameters (?a - agent ?x - thing ?f - furniture ?s - spot)
    :precondition (and (at ?a ?s) (stands ?f ?s) (in ?x ?f) (switchable ?x))
    :effect (lit ?x))

  (:action slice
    :parameters (?a - agent ?x - thing ?knife - thing ?kk - kind
                 ?f - furniture ?s - spot)
    :precondition (and (at ?a ?s) (stands ?f ?s) (in ?x ?f) (cuttable ?x)
                       (carries ?a ?knife) (is_thing ?knife ?kk) (blade ?kk))
    :effect (cut ?x)))
