//! The kinds of fault, and the tests that stand for each.

/// A kind of fault.
pub struct Fault {
    /// Its number in the list of those that were seen.
    pub number: &'static str,
    /// What happens.
    pub what: &'static str,
    /// Names of tests, without their modules.
    pub tests: &'static [&'static str],
}

/// How often a test tries its fault.
pub fn times(test: &str, schedules: u64) -> u64 {
    match test {
        "a_thousand_flips_cuts_and_zeroings_of_the_frozen_ledger_are_never_a_silent_loss" => 1000,
        "random_schedules_lose_nothing" => schedules + schedules.div_ceil(4).min(12),
        "no_fault_of_the_only_machine_is_final" => 90,
        "a_worker_stopped_politely_nine_times_costs_nothing" => 18,
        "a_flood_of_names_gets_no_more_room_than_there_is_and_leaves_again" => 3000,
        _ => 1,
    }
}

/// All of them.
pub const FAULTS: &[Fault] = &[
    Fault {
        number: "1",
        what: "the ledger: flipped bits, cut ends, records removed; repaired, moved, cleared out",
        tests: &[
            "a_thousand_flips_cuts_and_zeroings_of_the_frozen_ledger_are_never_a_silent_loss",
            "records_removed_repeated_or_moved_do_not_chain",
            "a_coordinator_stops_at_damage_with_its_place_and_starts_after_the_repair",
            "a_crash_at_any_step_of_a_repair_leaves_the_old_ledger_or_the_new_one",
            "a_moved_ledger_is_the_same_and_replays_to_the_same_state",
            "old_blobs_that_nothing_names_are_collected",
        ],
    },
    Fault {
        number: "2",
        what: "names that outlive what they name: a deleted state folder, a model that is another",
        tests: &[
            "a_deleted_state_folder_starts_anew_beside_a_worker_left_running",
            "a_worker_without_the_model_is_not_asked_for_its_work",
        ],
    },
    Fault {
        number: "3",
        what: "one machine's passing fault: disk, store, memory, device, stops",
        tests: &[
            "no_fault_of_the_only_machine_is_final",
            "who_fails_what_others_can_do_is_rested_not_obeyed",
            "a_worker_stopped_politely_nine_times_costs_nothing",
            "a_worker_with_a_wrong_store_rests_and_the_others_finish",
            "a_worker_with_a_full_disk_rests_and_the_others_finish",
            "what_a_task_itself_is_to_blame_for_is_final_once_a_second_worker_says_so",
            "a_machine_s_faults_are_told_from_the_task_s",
            "a_person_s_word_ends_rests_or_gives_up_what_waits",
        ],
    },
    Fault {
        number: "4",
        what: "publishing dies or errs at any step, or another release is newer",
        tests: &[
            "a_death_before_any_step_loses_nothing",
            "a_death_after_any_step_loses_nothing",
            "an_error_before_any_step_is_waited_out",
            "an_error_after_any_step_is_waited_out",
            "a_store_that_denies_for_an_hour_gets_the_release_in_the_end",
            "a_student_judged_against_the_base_alone_is_held_before_another_release",
        ],
    },
    Fault {
        number: "5",
        what: "two coordinators on one bus",
        tests: &[
            "a_second_coordinator_refuses",
            "a_dead_coordinators_colony_is_taken_over",
            "a_zombie_acknowledges_nothing",
            "a_foreign_answer_is_given_back_and_dies_at_last",
        ],
    },
    Fault {
        number: "6",
        what: "absurd heartbeats, and thousands of names",
        tests: &[
            "absurd_heartbeats_are_refused_before_anyone_allocates_by_them",
            "a_flood_of_names_gets_no_more_room_than_there_is_and_leaves_again",
            "strays_are_closed_at_the_start",
        ],
    },
    Fault {
        number: "7",
        what: "references longer than what they may name",
        tests: &[
            "a_reference_beyond_the_bound_is_refused_unasked",
            "more_than_was_asked_for_is_given_up",
        ],
    },
    Fault {
        number: "8",
        what: "transfers longer than a lease",
        tests: &["every_part_that_moves_is_told", "bytes_that_move_keep_the_lease"],
    },
    Fault {
        number: "9",
        what: "the broker has no room",
        tests: &[
            "a_server_at_its_limit_goes_on_with_room",
            "a_full_disk_goes_on_with_room",
            "a_bus_without_room_ends_nobody",
            "a_server_without_room_ends_nobody",
        ],
    },
    Fault {
        number: "10",
        what: "broker or store away while finished work is posted or read",
        tests: &[
            "a_task_that_is_finished_is_answered_from_the_spool",
            "what_could_not_be_posted_is_posted_later_without_being_asked",
            "an_answer_outlives_an_hour_without_the_store",
        ],
    },
    Fault {
        number: "11",
        what: "texts of machines that quote a prompt",
        tests: &[
            "invariant_7_a_worker_s_own_words_are_not_taken_over",
            "invariant_7_a_failure_s_free_text_is_not_read",
            "invariant_7_a_panic_that_quotes_a_prompt_does_not_say_it",
        ],
    },
    Fault {
        number: "12",
        what: "model files that allocate or loop by a number that stands in them",
        tests: &[
            "numbers_are_held_against_the_tensors_before_anything_is_made_of_them",
            "token_ids_are_held_against_the_vocabulary",
            "an_index_names_files_of_its_folder_and_not_thousands",
            "a_template_without_an_end_is_the_reason_why_a_prompt_is_left_out",
            "counts_of_a_gguf_file_make_nothing",
            "bytes_are_counted_before_they_are_made",
            "templates_in_use_render_as_they_are_and_far_below_the_bounds",
        ],
    },
    Fault {
        number: "13",
        what: "errors without their causes",
        tests: &[
            "every_cause_is_said_once",
            "a_folder_that_takes_nothing_says_why",
            "a_shard_that_shrinks_under_a_streamed_model_is_named",
            "the_systems_reason_is_told_once",
        ],
    },
    Fault {
        number: "14",
        what: "panics in a part of the service",
        tests: &[
            "a_reader_that_panics_or_ends_is_told_and_its_words_are_not",
            "a_panic_while_publishing_ends_the_service_and_not_the_order",
            "a_panic_ends_what_waits",
        ],
    },
    Fault {
        number: "15",
        what: "a changed byte that a pull calls verified",
        tests: &[
            "what_was_not_read_is_not_called_verified",
            "damage_on_this_machine_is_found_and_mended",
        ],
    },
    Fault {
        number: "16",
        what: "hostile names, links, file systems without hard links, a store that comes later",
        tests: &[
            "hostile_paths_are_refused",
            "links_in_the_partial_folder_are_not_followed",
            "a_folder_without_hard_links_is_refused_with_a_remedy",
            "a_store_that_appears_later_is_waited_for",
            "what_is_kept_comes_back_after_a_restart_and_is_pending_until_posted",
        ],
    },
    Fault {
        number: "all",
        what: "random schedules of kills, stops, full disks and outages on whole campaigns",
        tests: &["random_schedules_lose_nothing"],
    },
];
