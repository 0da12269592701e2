"""The cases: what is tried, what must come of it, and which tests prove it.

Tests below `tests/attacks` and `tests/faults` name their case by the marker `case`; those that are
about something else as well are named here. A case without either has a reason in `unproved`.
"""

from __future__ import annotations

from msgspec import Struct

SOURCE, GIT = "tests/unit/test_source.py", "tests/real/test_source_git.py"
PRIVATE = "tests/real/test_source_private.py"
HARM, SERVERS = "tests/real/test_source_hostile.py", "tests/real/test_source_servers.py"
NAMES, WRITTEN, VERSIONS = (
    "tests/real/test_source_names.py",
    "tests/unit/test_written.py",
    "tests/unit/test_versions.py",
)
BUILD, KEPT = "tests/unit/test_build.py", "tests/unit/test_artifacts.py"
OFFERED, CATALOGUE = "tests/real/test_catalogue.py", "tests/unit/test_catalogue.py"
JAIL, KINDS = "tests/real/test_build_hostile.py", "tests/real/test_build_jail.py"
BROWSER = "tests/tui/test_browser.py"
MODULES = "tests/unit/test_modules.py"
POOLED = "tests/unit/test_network.py"
PACKAGES, REGISTER = "tests/unit/test_packages.py", "tests/unit/test_register.py"
INTERNET = "tests/unit/test_internet.py"
CALL, CALLEE = "tests/unit/test_call.py", "tests/unit/test_callee.py"
LINKS, GRAMMAR = "tests/unit/test_links.py", "tests/real/test_call_grammar.py"
ARGUMENTS = "tests/real/test_arguments.py"
SERVE, FUNCTION = "tests/api/test_serve.py", "tests/api/test_function.py"
ADMIN, OBSERVE, ROLES = (
    "tests/api/test_admin.py",
    "tests/api/test_observe.py",
    "tests/api/test_roles.py",
)
PUSHES = "tests/unit/test_pushes.py"
LATER, KEEPING = "tests/unit/test_later.py", "tests/contract/test_keeping.py"
NETWORK, SECCOMP = "tests/real/test_network.py", "tests/unit/test_seccomp.py"
LIFE, STATE, POOL = "tests/real/test_daemon.py", "tests/unit/test_state.py", "tests/unit/test_pool.py"
LOGS, CONSOLE, TERMINAL = (
    "tests/unit/test_logs.py",
    "tests/tui/test_console.py",
    "tests/tui/test_terminal.py",
)
HTTP2 = "tests/api/test_http2.py"
CLIENTS, FLOOD = "tests/api/test_clients.py", "tests/api/test_flood.py"
PROXIES = "tests/api/test_proxies.py"
HARNESS = "tests/unit/test_harness.py"
OUTCOME = "tests/unit/test_outcome.py"
JAILS = "tests/contract/test_jails.py"
PLAIN = "tests/api/test_plain.py"
CGROUPS = "tests/real/test_cgroups.py"
ISLAND = "tests/unit/test_island.py"
FAILURES = "tests/unit/test_failures.py"
NODES = "tests/api/test_nodes.py"
MCP = "tests/api/test_mcp.py"
TOGETHER = "tests/contract/test_keeping_together.py"
BUILDS, CALLS = "tests/unit/test_fleet_builds.py", "tests/unit/test_fleet_calls.py"
PAST, RECEIPTS = "tests/api/test_past.py", "tests/api/test_receipts.py"
RELOADING, COMMANDS = "tests/api/test_reloading.py", "tests/api/test_commands.py"


class Case(Struct, frozen=True):
    number: str
    attack: str
    outcome: str
    """What is safe."""
    proofs: tuple[str, ...] = ()
    """Tests elsewhere, as `file::name`."""
    unproved: str = ""
    """Why there is no test, or not a whole one."""


def _tests(file: str, *names: str) -> tuple[str, ...]:
    return tuple(f"{file}::{name}" for name in names)


GROUPS = {
    "R": "Resources",
    "K": "Kernel and other processes",
    "N": "Network",
    "F": "Files",
    "G": "Git: URLs, servers, repositories",
    "B": "Builds",
    "C": "The text of a call",
    "H": "HTTP",
    "T": "Terminals and logs",
    "S": "Functions with a name: secrets, webhooks, handlers, pushes, schedules",
    "A": "Calls that answer later",
    "P": "Other versions, receipts",
    "M": "Agents (MCP)",
    "D": "Faults of daemon and host",
    "W": "Between the islands of a fleet",
}

CASES = (
    Case("R1", "fork bomb", "EAGAIN at the limit; a racing one dies with its jail"),
    Case("R2", "memory bomb", "the whole jail is killed, and the outcome says out_of_memory"),
    Case("R3", "file descriptors taken without end", "EMFILE inside, the daemon's own unchanged"),
    Case(
        "R4", "disk filled", "ENOSPC and disk_full, or out_of_memory where the disk is memory; freed at once"
    ),
    Case("R5", "inodes taken without end", "ENOSPC, or charged as memory"),
    Case("R6", "endless output", "cut at the limit, output_limit; the daemon's memory stays flat"),
    Case("R7", "a trickle of output, never closed", "timed_out with what was printed"),
    Case("R8", "all threads spin", "the jail's share of CPU and no more; neighbours answered"),
    Case("R9", "SIGTERM ignored", "SIGKILL at the deadline"),
    Case("R10", "a daemon that keeps standard output", "the answer is not delayed; nothing is left"),
    Case("R11", "zombies", "counted against the limit; orphans are reaped inside"),
    Case("R12", "shared memory, memfds and queues hoarded", "charged to the jail, freed with it"),
    Case("R13", "pipes, sockets, inotify and timers hoarded", "limits are hit inside only"),
    Case(
        "R14",
        "thousands of distinct repositories and calls",
        "each client has its share; what is used stays cached",
        (
            *_tests(ROLES, "test_a_client_has_only_so_many_calls_and_others_theirs"),
            *_tests(KEPT, "test_beyond_the_limit_the_least_recently_used_goes"),
            *_tests(GIT, "test_beyond_the_room_for_all_those_go_that_nobody_asked_for_longest"),
        ),
    ),
    Case(
        "R15",
        "one client takes all places to run",
        "half of them are for others; who waits, waits one turn of each other client",
    ),
    Case("R16", "one client fills the queue", "the last of the longest line is refused, not the newcomer"),
    Case(
        "R17",
        "one client takes all places to build",
        "half of them are for others; builds that wait are bounded, and made in turns",
    ),
    Case(
        "R18",
        "a greedy client asks first for what another needs too",
        "work for several clients is done at the first turn of any",
    ),
    Case(
        "R19",
        "a package that does not compile, a repository that is missing or refused, asked for in a loop",
        "answered from memory for a while, and the answer says so",
        _tests(
            FAILURES,
            "test_a_failure_is_told_again_with_its_age",
            "test_a_remembered_failure_does_not_grow_older_by_being_told",
        ),
    ),
    Case(
        "R20",
        "binaries made in a loop, so that those of others make room",
        "the client who has most room gives up some, and of that the repository that has most",
    ),
    Case(
        "R21",
        "functions called in a loop, so that warm jails are theirs alone",
        "each client's first comes first",
    ),
    Case(
        "R22",
        "a function finds the nonce in its memory, and refuses the call in the harness's name",
        "it can; its words are bounded and printable, and the answer says that the jail told it",
        _tests(HARNESS, "TestRejection::test_a_function_that_found_the_nonce_says_little_and_is_named"),
    ),
    Case(
        "R23",
        "one client asks for a repository before it is pushed, so that others are told that it is missing",
        "who did not ask before asks the remote",
    ),
    Case(
        "R24",
        "many commits of one repository, so that who needs another waits for all of them",
        "they are fetched in turns of the clients; who waits is bounded in number and time",
    ),
    Case(
        "R25",
        "one client takes all addresses",
        "half of them are for others; who waits is served in turns, and bounded in number and time",
        _tests(
            POOLED,
            "test_a_greedy_client_leaves_half_of_the_addresses",
            "test_where_all_are_one_client_the_modest_waits_for_all",
        ),
    ),
    Case(
        "R26",
        "a function finds the nonce in its memory, and writes records in the harness's name",
        "they concern its own answer; one is read, what is no JSON is dropped, output is bounded as ever",
        _tests(OUTCOME, "TestForged::test_a_record_concerns_its_own_answer"),
    ),
    Case(
        "R27",
        "a function gives its answer, or forges one, and runs on behind it",
        "its caller has the answer; the jail is killed and taken away as any other",
        _tests(JAILS, "test_its_last_word_is_its_end_and_it_does_not_outlive_that"),
    ),
    Case("K1", "kill(-1), signals to the host's processes", "ESRCH"),
    Case("K2", "other processes traced, read, their descriptors taken", "EPERM or ESRCH"),
    Case("K3", "sysctl, core_pattern, /sys", "EROFS, EACCES, or not there"),
    Case("K4", "mount, fsopen, open_tree, move_mount, pivot_root", "EPERM"),
    Case("K5", "namespaces within the jail", "EPERM; clone3 ENOSYS"),
    Case("K6", "a key left for the next call", "EPERM"),
    Case("K7", "bpf, perf_event_open", "EPERM"),
    Case("K8", "userfaultfd, io_uring", "EPERM"),
    Case("K9", "setns, open_by_handle_at, chroot", "EPERM"),
    Case(
        "K10",
        "32-bit and x32 entries",
        "the process is ended; ENOSYS",
        _tests(
            SECCOMP,
            "test_attempts_succeed_outside_and_fail_under_the_filter",
            "test_foreign_entries_end_the_process",
        ),
    ),
    Case("K11", "the launcher rewritten by way of /proc", "refused; its hash is the same"),
    Case("K12", "inherited descriptors, a folder outside", "0 to 2, and a folder inside"),
    Case("K13", "the environment", "no variable of the host"),
    Case("K14", "devices, mknod", "null, zero, full, random, urandom; EPERM"),
    Case("K15", "typing into a terminal", "there is none"),
    Case("K16", "System V memory, /dev/shm, locks", "nothing shared between jails"),
    Case("K17", "clock and hostname set", "EPERM"),
    Case("K18", "a folder's descriptor for a sibling", "no way to hand it over"),
    Case(
        "K19",
        "FreeBSD: kldload, sysctl, jail_attach, jails within",
        "EPERM; children.max is 0",
        unproved="needs a FreeBSD kernel; what the driver asks of the launcher is tested on stand-ins that "
        "refuse unknown parameters (tests/freebsd)",
    ),
    Case(
        "K20",
        "side channels of the processor",
        "a residual risk, see below",
        unproved="no test can show their absence",
    ),
    Case(
        "K21",
        "a lock (fcntl, flock) on a device or the binary, for another jail to see",
        "each jail has inodes of its own",
    ),
    Case("K22", "a watcher (inotify) on what another jail opens", "sees its own jail alone"),
    Case(
        "K23",
        "/proc: the host's figures and command line, the island's paths",
        "processes only; with bubblewrap, mountinfo has the paths of layers",
    ),
    Case(
        "K24",
        "oom_score_adj, loginuid, pressure triggers; a core for the host's handler",
        "EROFS; the limit with which the kernel starts no handler (none is set on trial: it is the host's)",
    ),
    Case("K25", "a function says what bwrap or the launcher would", "an outcome like any other"),
    Case(
        "K26",
        "out of memory as one jail ends, in the group that the next one gets",
        "the next one is not killed for it",
        _tests(CGROUPS, "test_what_the_last_jail_met_as_it_ended_does_not_kill_the_next"),
    ),
    Case(
        "K27",
        "an end just before the jail gets its address, its number taken by another process",
        "no interface for the other",
        _tests(NETWORK, "test_a_number_that_another_process_has_by_now_gets_no_interface"),
    ),
    Case(
        "K28",
        "a lock on a file without a name (eventfd, epoll, a namespace), for another jail to see",
        "a residual risk, see below",
        unproved="the kernel has one inode for all of them, and no limit or filter divides it",
    ),
    Case("N1", "the API and other ports on the host's loopback", "out of reach"),
    Case("N2", "abstract Unix sockets of the host", "none visible"),
    Case(
        "N3",
        "metadata service, local networks, names",
        "out of reach",
        _tests(NETWORK, "test_with_nat_a_jail_reaches_the_internet_and_its_name_server_alone"),
    ),
    Case("N4", "raw, packet, netlink and vsock sockets", "EPERM, EAFNOSUPPORT, EPROTONOSUPPORT"),
    Case(
        "N5",
        "with an address: the neighbours",
        "filtered",
        _tests(
            NETWORK,
            "test_without_the_guard_a_jail_reaches_everything",
            "test_with_nat_a_jail_reaches_the_internet_and_its_name_server_alone",
            "test_without_nat_a_jail_reaches_nothing",
            "test_a_jail_that_routes_by_the_host_does_not_reach_another",
            "test_a_jail_with_a_foreign_address_is_not_heard",
            "test_the_operator_names_the_networks_outside",
        ),
    ),
    Case(
        "N6",
        "the host's table of connections filled by one jail",
        "256 at a time for each address; other jails and the host have theirs",
        _tests(NETWORK, "test_a_jail_has_so_many_connections_and_others_theirs"),
    ),
    Case("F1", "files of other jails, caches, settings", "not there"),
    Case("F2", "a mark for the next call", "gone"),
    Case("F3", "base system and toolchain written", "EROFS or EACCES; unchanged"),
    Case("F4", "links and pipes where the daemon reads or deletes", "not followed, not waited for"),
    Case("F5", "deep trees, folders without rights", "removed all the same"),
    Case(
        "F6",
        "a repository's links to files and folders of the host, where the daemon reads",
        "followed within the repository only; what is outside looks like nothing, there or not",
        _tests(PACKAGES, "test_links_out_of_the_repository_tell_nothing_of_the_host"),
    ),
    Case(
        "F7",
        "two islands of one host with the same range of uids",
        "no uid is lent to two jails at one time; the start says that ranges meet",
    ),
    Case("F8", "the time of access to a file that jails share", "is not noted"),
    Case(
        "F9",
        "local users who look for private repositories, binaries and caches in the state folder",
        "they cannot enter",
        _tests("tests/unit/test_state_folder.py", "test_no_other_user_reads_what_private_repositories_hold"),
    ),
    Case(
        "F10",
        "a state folder, or one above it, or settings that others may write; tokens in settings they read",
        "refused with owner and mode; a warning",
        _tests(
            "tests/unit/test_state_folder.py",
            "test_a_folder_that_others_may_change_is_refused",
            "test_settings_that_others_write_are_refused",
            "test_settings_with_a_token_that_others_read_are_warned_of",
        ),
    ),
    Case(
        "F11",
        "a jail that the host cannot destroy",
        "it stays on view, and no other jail gets its uid",
        _tests(REGISTER, "test_a_jail_that_does_not_die_keeps_its_uid_and_its_place"),
    ),
    Case(
        "G1",
        "options in place of URLs",
        "refused",
        _tests(
            SOURCE,
            "test_malformed_urls_are_the_callers_mistake",
            "test_whatever_is_written_becomes_harmless_or_is_refused",
        ),
    ),
    Case(
        "G2",
        "ext::, file://, ssh, paths",
        "refused; Git itself may use one transport",
        (
            *_tests(SOURCE, "test_what_the_settings_do_not_permit_is_refused_with_the_remedy"),
            *_tests(SERVERS, "test_git_speaks_the_permitted_transport_only"),
        ),
    ),
    Case(
        "G3",
        "line breaks, @, .., loopback, redirects, rebinding",
        "refused; Git goes to the addresses that were looked at",
        (
            *_tests(
                SOURCE,
                "test_malformed_urls_are_the_callers_mistake",
                "test_private_hosts_are_refused_unless_the_operator_names_them",
            ),
            *_tests(
                SERVERS,
                "test_a_name_that_leads_into_the_own_network_is_refused",
                "test_git_goes_where_a_name_was_found_to_lead",
            ),
        ),
    ),
    Case(
        "G4",
        "submodules, names with ..",
        "never fetched, refused",
        _tests(
            HARM,
            "test_nothing_of_a_repository_or_of_our_environment_is_run",
            "test_a_tree_with_evil_names_is_refused",
        ),
    ),
    Case(
        "G5",
        "hooks, filters, LFS",
        "not run",
        _tests(HARM, "test_nothing_of_a_repository_or_of_our_environment_is_run"),
    ),
    Case(
        "G6",
        "links out of the checkout",
        "stay links, are never followed",
        (
            *_tests(GIT, "test_a_checkout_is_readable_for_all_and_its_links_stay_links"),
            *_tests(JAIL, "test_b5_links_are_not_embedded"),
        ),
    ),
    Case(
        "G7",
        "pack bombs, huge and deep repositories",
        "refused within limits of size and time, nothing left",
        _tests(
            HARM,
            "test_a_repository_beyond_the_limit_is_refused_and_gone",
            "test_files_that_only_compressed_are_small_are_refused",
            "test_a_tree_of_ten_thousand_million_files_is_refused",
            "test_a_tree_too_deep_to_be_deleted_is_refused",
            "test_a_delta_that_would_fill_the_memory_is_not_unfolded",
        ),
    ),
    Case(
        "G8",
        "a server that stalls, or asks for a password",
        "given up in time; nobody is asked",
        _tests(
            SERVERS,
            "test_a_server_that_stalls_is_given_up_in_time",
            "test_a_private_repository_is_as_good_as_none",
            "test_a_server_that_lies_is_believed_nothing",
            "test_a_server_that_prints_without_end_is_cut_off",
        ),
    ),
    Case(
        "G9",
        "versions --x, a..b, @{",
        "refused",
        (
            *_tests(SOURCE, "test_what_can_be_no_version"),
            *_tests(GIT, "test_what_can_be_no_version_never_reaches_git"),
        ),
    ),
    Case(
        "G10",
        "a server that lists references without end",
        "refused after 256 KiB",
        _tests(SERVERS, "test_a_listing_without_end_is_cut_off"),
    ),
    Case(
        "G11",
        "redirects of an allowed host into the private network",
        "Git follows none; each is looked at, and asked anew at its public addresses",
        (
            *_tests(
                SERVERS,
                "test_a_redirect_into_the_private_network_is_not_followed",
                "test_a_redirect_to_the_same_host_or_a_public_one_is_followed",
            ),
            *_tests(SOURCE, "test_redirects_that_are_not_followed"),
        ),
    ),
    Case(
        "G12",
        "a small repository of very many files",
        "refused by their number, and by what they take on disk; before one is written",
        _tests(HARM, "test_a_small_repository_of_very_many_files_is_refused"),
    ),
    Case(
        "G13",
        "repositories one after another, refused ones, builds whose cache grows",
        "room is reserved and measured as it fills; beyond the limit, what is not in use goes",
        (
            *_tests(
                HARM,
                "test_repositories_one_after_another_stay_within_the_room_for_all",
                "test_what_is_in_use_stays_and_who_finds_no_room_beside_it_is_refused",
            ),
            *_tests(KEPT, "test_a_build_that_outgrows_its_cache_ends_and_the_others_make_room"),
        ),
    ),
    Case(
        "G14",
        "many calls to Git servers and name servers that stall",
        "each client has its share of places, waits for one so long and no longer; others are answered",
        _tests(
            SERVERS,
            "test_a_greedy_client_of_a_server_that_stalls_leaves_places_to_others",
            "test_who_waits_too_long_for_a_place_is_told_so",
            "test_names_that_stall_hold_up_no_other_and_are_given_up",
        ),
    ),
    Case(
        "G15",
        "a commit of a fork or of a pull request, asked for by the repository's name",
        "compiled in a cache of its own; a request to merge may be asked for by its name",
        (
            *_tests(GIT, "test_a_commit_that_no_branch_or_tag_names_shares_nothing_with_the_repository"),
            *_tests(JAIL, "test_a_commit_of_a_fork_is_compiled_in_a_cache_of_its_own"),
        ),
    ),
    Case(
        "G16",
        "one repository by URLs of other cases, and names without end",
        "one mirror where the host knows no case; what is remembered of names is bounded",
        _tests(
            SOURCE,
            "test_where_case_counts_for_nothing_there_is_one_mirror",
            "test_what_strangers_name_is_forgotten_again",
        ),
    ),
    Case(
        "G17",
        "a pack that takes Git over, on an island of root's",
        "a user of its own that reads nothing of root's, no capability, no way to gain one, limits",
        _tests(
            HARM,
            "test_git_of_a_root_has_no_capability_and_gains_none",
            "test_git_that_strangers_feed_reads_nothing_of_roots_and_has_limits",
        ),
    ),
    Case(
        "G18",
        "addresses that embed private ones, clouds' own channels, the host's public address and neighbours",
        "no repository lies there",
        _tests(INTERNET, "test_what_is_not", "test_this_host_and_its_neighbours_are_not_a_callers"),
    ),
    Case(
        "G19",
        "pages for import paths that name private hosts, other programs or another's path, or have no end",
        "what a page names passes what a caller's URL must; its first 256 KiB are read, and not unpacked",
        (
            *_tests(
                NAMES,
                "test_what_a_page_names_passes_what_a_callers_url_must",
                "test_pages_that_lead_astray",
                "test_a_page_decides_for_its_own_path_alone",
            ),
            *_tests(WRITTEN, "test_only_the_beginning_of_a_page_is_read"),
        ),
    ),
    Case(
        "G20",
        "import paths and pages with versions -x and a..b, folders %2e%2e, a user before the host",
        "refused; a version stands in no other place than a reference",
        (
            *_tests(
                WRITTEN,
                "test_what_is_refused",
                "test_users_and_helpers_are_refused",
                "test_whatever_is_written_becomes_harmless_or_is_refused",
            ),
            *_tests(VERSIONS, "test_what_is_asked_for_stays_short"),
        ),
    ),
    Case(
        "G21",
        "a Git that was taken over leaves links in its mirror",
        "nothing outside the mirror is read, renamed or removed",
        _tests(HARM, "test_mirrors_are_gits_own_and_no_link_in_one_leads_out"),
    ),
    Case(
        "G22",
        "a private repository called without a token: by URL, commit, another case, a page, a redirect",
        "403 before any server is asked; what is compiled or on disk is as private",
        (
            *_tests(PRIVATE, "test_a_token_opens_a_private_repository_to_those_with_a_name"),
            *_tests(SOURCE, "test_a_prefix_covers_whole_segments_in_any_case_that_its_host_takes"),
            *_tests(NAMES, "test_a_page_opens_no_private_repository"),
        ),
    ),
    Case(
        "G23",
        "a server that redirects to a private repository, or a private one's to elsewhere",
        "the token goes to the server of its prefix alone, for names that its prefix covers",
        _tests(PRIVATE, "test_no_redirect_carries_a_token_nor_borrows_one"),
    ),
    Case(
        "G24",
        "credentials looked for in arguments, environments, messages and logs; a server that echoes them",
        "they are in none; callers read no word of such a server, admins read it without the token",
        (
            *_tests(
                PRIVATE,
                "test_a_token_opens_a_private_repository_to_those_with_a_name",
                "test_a_key_opens_a_private_repository_by_ssh",
                "test_files_of_credentials_are_looked_at_when_the_island_starts",
            ),
            *_tests(ROLES, "test_what_is_for_admins_is_told_to_admins"),
        ),
    ),
    Case(
        "G25",
        "a folder that a command published, asked for by others; hooks, filters and settings in it",
        "a name that only the admin's token makes, gone with the command; Git runs nothing of the folder",
        _tests(
            "tests/unit/test_publishing.py",
            "test_the_files_as_they_lie_there",
            "test_the_last_command_removes_what_was_published",
            "test_no_name_can_be_guessed",
        ),
    ),
    Case("B1", "flags for cgo", "there is no cgo", _tests(JAIL, "test_b1_cgo_is_off")),
    Case(
        "B2",
        "a toolchain line",
        "no other toolchain is fetched",
        _tests(JAIL, "test_b2_no_other_toolchain_is_fetched"),
    ),
    Case(
        "B3",
        "replace with / or ../",
        "nothing lies there",
        _tests(JAIL, "test_b3_replace_leads_nowhere"),
    ),
    Case(
        "B4",
        "GOFLAGS, go.env, -toolexec",
        "not read",
        _tests(JAIL, "test_b4_settings_of_the_repository_are_not_read"),
    ),
    Case("B5", "links embedded", "refused", _tests(JAIL, "test_b5_links_are_not_embedded")),
    Case("B6", "go:generate", "not run", _tests(JAIL, "test_b6_b9_no_code_of_the_repository_runs")),
    Case(
        "B7",
        "the build cache poisoned",
        "one for each repository",
        _tests(
            JAIL,
            "test_b7_a_build_can_poison_no_other",
            "test_b7_repositories_share_nothing_that_they_compiled",
        ),
    ),
    Case(
        "B8",
        "compiler bombs",
        "limits, an error that names the setting",
        _tests(JAIL, "test_b8_a_compiler_bomb_meets_a_limit", "test_b8_a_build_that_takes_too_long"),
    ),
    Case(
        "B9",
        "linkname, assembly, init()",
        "nothing of it runs in the build; in the jail, confined as all else",
        _tests(JAIL, "test_b6_b9_no_code_of_the_repository_runs"),
    ),
    Case(
        "B10",
        "secrets carried out during a build",
        "the step with a network runs no code of the repository and fetches by the proxy",
        (
            *_tests(BUILD, "test_the_jail_of_a_build", "test_modules_are_downloaded_only_when_needed"),
            *_tests(KINDS, "test_a_dependency_from_the_proxy"),
        ),
    ),
    Case(
        "B11",
        "killed in mid-build; two of the same",
        "nothing half-made; one build",
        (
            *_tests(JAIL, "test_b11_a_build_that_is_cancelled_half_way"),
            *_tests(BUILD, "test_two_hundred_callers_one_build"),
            *_tests(LIFE, "test_kill_while_building"),
        ),
    ),
    Case(
        "B12",
        "files, lists and texts made for a reader that is slower than linear",
        "linear time, whatever is in them: no reader holds up the daemon",
    ),
    Case(
        "B13",
        "a go.mod or go.work that writes into the ones that we make of it, or leads out of the repository",
        "plain words alone get there, and folders of the repository",
        (
            *_tests(JAIL, "test_b13_a_workspace_leads_nowhere"),
            *_tests(
                MODULES,
                "test_a_workspace_takes_nothing_from_elsewhere",
                "test_only_plain_words_get_into_ours",
            ),
        ),
    ),
    Case(
        "B14",
        "arguments as JSON: a mebibyte of one thing, nested half a million deep; a type that is code",
        "read in the jail alone, in linear time, to a depth; a type is nothing but a type",
        (
            *_tests(ARGUMENTS, "test_a_megabyte_takes_no_time", "test_nests_so_deep_and_no_deeper"),
            *_tests(CALLEE, "TestCallee::test_a_type_is_nothing_but_a_type"),
        ),
    ),
    Case(
        "B15",
        "a package that is too much to tell what it offers: functions, comments, types; "
        "one that says it itself, in place of our program",
        "told within a bound, the rest counted; read against types, without control characters",
        (
            *_tests(OFFERED, "test_b15_a_package_that_is_too_much"),
            *_tests(
                CATALOGUE,
                "test_a_stranger_s_word_is_refused",
                "test_what_does_not_show_is_replaced_and_no_ready_call_is_changed",
            ),
        ),
    ),
    Case("C1", "X()); os.Exit(0);(", "refused", _tests(CALL, "TestRefusals::test_say_where_and_why")),
    Case(
        "C2",
        "imports, comments, ; and statements outside of function literals",
        "refused",
        _tests(
            CALL,
            "TestRefusals::test_say_where_and_why",
            "TestRefusals::test_no_other_names_and_no_statements_get_through",
        ),
    ),
    Case(
        "C3",
        "names of os, unsafe, syscall; of the main program (harness, main, init); not exported ones",
        "refused",
        _tests(CALL, "TestRefusals::test_say_where_and_why"),
    ),
    Case(
        "C4",
        "bidirectional characters, NUL, bad UTF-8; other invisible characters outside of literals",
        "refused",
        _tests(
            CALL, "TestRefusals::test_say_where_and_why", "TestRefusals::test_any_text_is_refused_or_a_call"
        ),
    ),
    Case(
        "C5",
        "a megabyte, a hundred thousand brackets",
        "refused at once",
        _tests(CALL, "TestSize::test_a_million_brackets_are_refused_at_once", "TestSize::test_deepest"),
    ),
    Case(
        "C6",
        "ambiguous cache keys",
        "different wishes have different keys",
        _tests(KEPT, "test_different_wishes_have_different_keys"),
    ),
    Case(
        "C7",
        "in function literals: go, defer, goto, import, type, pragmas, names that hide the package's",
        "refused",
        _tests(CALL, "TestRefusals::test_say_where_and_why"),
    ),
    Case(
        "C8",
        "text that our parser reads otherwise than Go's",
        "one expression to Go, too, or none: nothing reaches out of the brackets around it",
        _tests(GRAMMAR, "test_nothing_that_is_accepted_escapes"),
    ),
    Case(
        "C9",
        "a compiler, taken over, that names parts of a call which give no error",
        "a program that Go refuses, or that asks for an error",
        _tests(LINKS, "test_what_is_no_link"),
    ),
    Case(
        "H1",
        "requests whose end is ambiguous, bad chunks",
        "400 and close",
        _tests(
            SERVE,
            "test_malformed_requests",
            "test_bad_chunks_run_nothing",
            "test_length_and_chunks_cannot_smuggle",
        )
        + _tests(PLAIN, "test_what_is_taken_is_what_h11_takes", "test_all_else_is_not"),
    ),
    Case(
        "H2",
        "bodies and headers too long",
        "413, 431",
        (
            *_tests(SERVE, "test_the_sender_of_too_much_hears_why", "test_malformed_requests"),
            *_tests(FUNCTION, "test_too_long"),
            *_tests(ADMIN, "test_admin_bodies_are_bounded"),
        ),
    ),
    Case(
        "H3",
        "slow headers, slow bodies",
        "closed, 408",
        _tests(SERVE, "test_slow_headers_are_cut", "test_slow_bodies_are_cut"),
    ),
    Case(
        "H4",
        "HTTP/2: many streams at once, long lists of headers",
        "off unless asked for; each connection has 32 streams and 16 KiB of headers, and is told so",
        (*_tests(SERVE, "test_http2_is_capped"), *_tests(HTTP2, "test_http2_is_off")),
    ),
    Case(
        "H5",
        "nested JSON, huge numbers, fields twice",
        "400, and the loop goes on",
        _tests(FUNCTION, "test_bad_bodies", "test_no_body_breaks_the_reader"),
    ),
    Case(
        "H6",
        "tokens guessed, empty tokens",
        "compared in constant time; without a token no admin",
        (
            *_tests(
                ADMIN,
                "test_tokens_are_compared_in_constant_time",
                "test_no_token_no_admin",
                "test_only_admins",
            ),
            *_tests(ROLES, "test_roles"),
        ),
    ),
    Case(
        "H7",
        "ids ../, %2f, *",
        "404",
        (*_tests(ADMIN, "test_no_other_jails"), *_tests(OBSERVE, "test_nothing_there")),
    ),
    Case(
        "H8",
        "ten thousand event streams, readers that do not read",
        "a cap, one bounded ring, cut off",
        (
            *_tests(
                OBSERVE,
                "test_streams_are_capped",
                "test_too_many_streams_are_told",
                "test_a_slow_reader_is_told_a_gap",
                "test_the_ring_is_bounded_in_bytes",
            ),
            *_tests(SERVE, "test_a_stalled_reader_is_cut"),
        ),
    ),
    Case(
        "H9",
        "hang-up in mid-call",
        "the jail ends, the place is free",
        _tests(SERVE, "test_a_client_that_hangs_up_stops_its_jail"),
    ),
    Case(
        "H10",
        "overload",
        "429 with Retry-After, at a pace; health and admin answer within 50 ms",
        _tests(FUNCTION, "test_overload_is_refused_and_health_answers"),
    ),
    Case(
        "H11",
        "X-Forwarded-For forged, addresses of one IPv6 network, for further shares",
        "one client; only trusted proxies name theirs",
        _tests(
            CLIENTS,
            "test_a_share_is_of_an_address_or_of_a_network_of_ipv6",
            "test_only_a_trusted_proxy_names_its_client",
            "test_a_forged_header_gives_nobody_a_second_share",
        ),
    ),
    Case(
        "H12",
        "refused requests with texts as long as a body may be",
        "nothing is kept; events, rings, history, database, log lines and pages bounded in bytes",
        _tests(
            FLOOD,
            "test_a_text_too_long_is_refused_and_nothing_of_it_kept",
            "test_an_event_has_the_beginning_of_each_text",
            "test_the_ring_counts_every_field",
            "test_the_log_ring_is_bounded_in_bytes",
            "test_a_line_of_the_log_is_bounded",
            "test_lines_that_wait_are_bounded_in_bytes",
            "test_history_is_bounded_in_bytes_in_memory_and_on_disk",
            "test_what_waits_for_a_stuck_disk_is_bounded",
            "test_functions_compiled_whole_are_bounded",
            "test_a_page_of_invocations_is_bounded_in_bytes",
        ),
    ),
    Case(
        "H13",
        "HTTP/2: requests that are reset at once; floods of settings, pings, window updates, priorities, "
        "continuations, unknown frames",
        "each connection has a budget, then GOAWAY and its end; others are answered all the while",
        _tests(
            HTTP2,
            "test_a_flood_is_cut_off_and_others_are_answered",
            "test_without_the_budget_resets_go_on",
        ),
    ),
    Case(
        "H14",
        "bodies that unpack to a thousand times their length, or to nothing for ever",
        "unpacked no further than api.max_body, beside the event loop; 413, 400",
        _tests(PROXIES, "test_packed_bodies_are_bounded", "test_what_unpacks_to_just_the_limit_is_taken"),
    ),
    Case(
        "H15",
        "calls of thousands of functions, or of names that no package has, to fill figures and metrics",
        "250 rows, the rest counted together; who ran of late keeps its row; no more labels than rows",
        _tests(
            "tests/unit/test_functions.py",
            "test_rows_are_bounded_and_a_flood_of_names_drives_nobody_out",
            "test_calls_that_nobody_understood_are_counted_together",
        ),
    ),
    Case(
        "T1",
        "escape sequences in output and names",
        "made visible in console and log",
        (
            *_tests(CONSOLE, "test_hostile_names_neither_crash_nor_reach_the_terminal"),
            *_tests(TERMINAL, "test_nothing_that_a_jail_says_reaches_the_terminal_raw"),
            *_tests(LOGS, "test_printable", "test_the_ring_holds_printable_text_without_secrets"),
        ),
    ),
    Case(
        "T2",
        "markup of the console's library",
        "shown as it is",
        _tests(CONSOLE, "test_hostile_names_neither_crash_nor_reach_the_terminal"),
    ),
    Case(
        "T3",
        "line breaks that forge log lines",
        "one JSON line",
        _tests(LOGS, "test_no_text_forges_a_line", "test_a_traceback_is_one_line"),
    ),
    Case(
        "T4",
        "a function's output, an error's text, in a command's terminal",
        "visible characters only, unless `--raw` is given; files and pipes get every byte",
        _tests(
            COMMANDS,
            "test_output_gives_a_terminal_no_orders",
            "test_output_to_a_file_is_every_byte_and_error_texts_are_clean",
            "test_an_error_gives_a_terminal_no_orders",
            "test_json_gives_a_terminal_no_orders",
        ),
    ),
    Case(
        "T5",
        "another user of the host opens the console in a browser",
        "401; the ticket that `skyisland web` prints lets one browser in",
        _tests(BROWSER, "test_only_the_browser_with_the_ticket_is_let_in"),
    ),
    Case(
        "S1",
        "a secret looked for in /proc, state folder, logs, history, events, snapshots, metrics, errors, "
        "outputs, calls that answer later",
        "it is in its own file, mode 0600, in the function that has it, and in its caller's own result",
        (
            *_tests(
                "tests/api/test_names.py",
                "test_no_answer_log_or_event_has_a_secret",
                "test_a_function_that_prints_its_secret_tells_its_caller_alone",
                "test_a_call_that_answers_later_tells_a_secret_to_its_caller_alone",
            ),
            *_tests(
                "tests/unit/test_named.py",
                "test_secrets_lie_in_private_files_and_show_themselves_to_nobody",
                "test_terms_and_bodies_with_secrets_do_not_show_them",
            ),
        ),
    ),
    Case(
        "S2",
        "a secret asked for by another name, or by a plain call",
        "neither has it: a call has what its name's definition gives it, and no request can add to that",
    ),
    Case(
        "S3",
        "a webhook without a signature, with another's, of another body, sent again later, or with two",
        "403 before a jail is spent; comparisons take constant time, and no answer tells of the secret",
        (
            *_tests("tests/unit/test_webhooks.py", "test_what_is_signed_passes_and_nothing_else"),
            *_tests("tests/unit/test_webhooks.py", "test_no_header_breaks_it"),
            *_tests("tests/api/test_handlers.py", "test_a_webhook_is_let_in_by_its_signature_alone"),
        ),
    ),
    Case(
        "S4",
        "a handler's answer that is no HTTP, has two lengths, NUL, an endless head, or another protocol",
        "502; nothing of it reaches the connection, whose framing is the server's own",
        (
            *_tests("tests/api/test_handlers.py", "test_what_is_no_answer_is_a_502"),
            *_tests("tests/api/test_handlers.py", "test_an_answer_of_many_chunks_leaves_others_their_turns"),
        ),
    ),
    Case(
        "S5",
        "a request that forges X-Forwarded-…, or a handler that looks for its caller's token",
        "forged ones are dropped and ours are there; the island's token stays with the island",
        _tests("tests/api/test_handlers.py", "test_what_a_handler_is_sent"),
    ),
    Case(
        "S6",
        "a push that is forged, sent again, of another repository or branch, or names a commit of its own",
        "403 without the secret; else Git is looked at, once for each id of a delivery; Git says what runs",
        (
            *_tests(
                PUSHES,
                "test_who_does_not_know_the_secret_has_nothing_looked_at",
                "test_a_push_moves_the_names_that_follow_the_branch",
                "test_what_concerns_no_name_says_why_it_is_idle",
                "test_pushes_during_a_look_have_one_more",
            ),
            *_tests("tests/api/test_names.py", "test_a_push_is_let_in_by_its_signature_alone"),
        ),
    ),
    Case(
        "S7",
        "a push without end, deep, or of the wrong types",
        "400 or 413 within its bounds, on a thread, in time in proportion to its length",
        _tests(PUSHES, "test_no_body_breaks_the_reader", "test_what_is_no_push_is_refused"),
    ),
    Case(
        "S8",
        "a schedule that costs: an expression without a time, one that is nested, years of missed minutes",
        "it is refused when it is defined, or counted within bounds, and looked at on a thread",
        _tests(
            "tests/unit/test_schedules.py",
            "test_no_text_breaks_the_reader",
            "test_what_is_no_schedule_names_the_remedy",
            "test_what_was_due_in_years_is_counted_within_bounds",
        ),
    ),
    Case(
        "A1",
        "a callback to loopback, a metadata service, a private network; by a changing name, by a redirect",
        "refused when it is named, or when it is sent, each time anew; redirects are not followed",
        _tests(
            LATER,
            "test_a_url_that_no_callback_goes_to_is_refused_when_it_is_named",
            "test_a_callback_goes_nowhere_but_to_the_public_internet",
            "test_a_callback_follows_no_redirect",
        ),
    ),
    Case(
        "A2",
        "a callback forged, or sent again, by another caller",
        "each client has a secret of its own; the signature is over id, time and body",
        _tests(
            LATER,
            "test_a_callback_is_signed_and_sent_until_it_is_taken",
            "test_a_signature_is_that_of_standard_webhooks",
        ),
    ),
    Case(
        "A3",
        "another client's call asked for, cancelled, run again; its Idempotency-Key used",
        "404, as if there were none; keys are of each client",
        _tests(
            "tests/api/test_later.py",
            "test_callers_see_their_own_calls_and_operators_change_none",
            "test_what_is_sent_again_with_its_key_runs_once",
        ),
    ),
    Case(
        "A4",
        "more calls accepted than can be run, large ones, all at once",
        "429 beyond the client's share of number and bytes; clients in turns; callers who wait come first",
        (
            *_tests(KEEPING, "test_a_queue_and_each_share_of_it_have_bounds"),
            *_tests(LATER, "test_places_are_shared_and_calls_whose_callers_wait_come_first"),
        ),
    ),
    Case(
        "A5",
        "the file of kept calls damaged, its disk full",
        "503 with the reason; the file is left as it is, and nothing that was accepted is lost",
        (
            *_tests(
                KEEPING,
                "test_a_damaged_file_is_left_as_it_is_and_said_to_be_damaged",
                "test_a_full_disk_refuses_what_comes_and_keeps_what_was_accepted",
            ),
            *_tests("tests/api/test_later.py", "test_an_island_that_cannot_keep_calls_still_runs_the_others"),
        ),
    ),
    Case(
        "P1",
        "calls at hundreds of versions, each a build, from several clients",
        "behind all other calls: none begins while somebody waits, some places stay free",
        _tests(PAST, "test_a_call_behind_others_waits_until_nobody_does_and_leaves_a_place"),
    ),
    Case(
        "P2",
        "a name's environment and secrets for a commit that no admin gave them to, by a sweep or a replay",
        "other commits run as plain calls, without them",
        _tests(PAST, "test_a_name_is_replayed_by_name_while_it_stands_for_the_same"),
    ),
    Case(
        "P3",
        "a receipt with one byte flipped, anywhere; written otherwise; signed by another key or purpose",
        "refused: it has one form, and the signature is over all of it",
        _tests(
            RECEIPTS,
            "test_a_receipt_is_refused_after_one_flipped_byte_of_anything",
            "test_another_key_or_another_purpose_is_no_signature",
        ),
    ),
    Case(
        "P4",
        "a receipt that its island's key signed, of a binary that the code is not",
        "its code is built again, and what differs is named",
        _tests(RECEIPTS, "test_commands_print_and_check_a_receipt"),
    ),
    Case(
        "P5",
        "another caller's receipt; receipts without end, to push out those of others",
        "404; whoever has most loses its own",
        _tests(
            RECEIPTS,
            "test_a_receipt_is_for_its_caller_and_operators",
            "test_whoever_wants_many_receipts_loses_its_own",
        ),
    ),
    Case(
        "P6",
        "the signing key readable for others",
        "nothing is signed with it; the island makes its own for itself alone",
        _tests(RECEIPTS, "test_the_key_is_private_and_stays"),
    ),
    Case(
        "M1",
        "an agent that lists, or calls, what its token may not; one without a token, or with an operator's",
        "the list has what the token may call; another tool is unknown; 401, 403",
        _tests(MCP, "test_a_token_limits_the_official_client"),
    ),
    Case(
        "M2",
        "a web page that speaks MCP; /mcp of an island whose operator did not ask for it",
        "403; 404",
        _tests(MCP, "test_a_foreign_page_and_other_methods_are_refused_and_it_is_off_by_default"),
    ),
    Case(
        "M3",
        "messages that are none: nested, cut off, not UTF-8, of other methods and types",
        "an error of JSON-RPC each",
        _tests(MCP, "test_what_is_no_message_is_answered_as_an_error"),
    ),
    Case(
        "M4",
        "thousands of types that refer to one another, for the schema of a tool",
        "no recursion, and a bound: it takes a plain array then",
        _tests(MCP, "test_schemas_are_bounded_and_need_no_recursion"),
    ),
    Case(
        "D1",
        "kill -9 of the daemon",
        "all jails die; the next start finds and frees what is left",
        _tests(
            LIFE,
            "test_kill_while_cloning",
            "test_kill_while_building",
            "test_kill_while_running",
            "test_kill_while_taking_back",
        ),
    ),
    Case("D2", "a worker thread that spawned ends", "the jails live on"),
    Case("D3", "the host out of memory", "jails go before the island"),
    Case("D4", "the host's disk full", "an error that says so, caches whole, recovery"),
    Case("D5", "the clock jumps", "time-outs do not"),
    Case(
        "D6",
        "SIGTERM under load",
        "running calls finish, the pool is destroyed",
        _tests(LIFE, "test_stop_drains", "test_stop_waits_no_longer_than_it_may"),
    ),
    Case(
        "D7",
        "a warm jail works or dies early",
        "it is destroyed and replaced; calls go on",
        _tests(
            POOL,
            "test_one_that_ends_early_is_replaced_but_not_forever",
            "test_one_that_works_while_it_waits_is_destroyed",
        ),
    ),
    Case(
        "D8",
        "a jail slow to die, a dataset that is busy",
        "tried again, nobody waits",
        unproved="on this host only with the stand-ins of tests/freebsd",
    ),
    Case(
        "D9",
        "many calls",
        "all counters are back where they were",
        (
            *_tests(LIFE, "test_many_one_after_another_leave_nothing"),
            *_tests(NETWORK, "test_two_hundred_lives_leave_nothing"),
        ),
    ),
    Case(
        "D10",
        "numbers of processes and jails used again",
        "pidfds, names beside numbers",
        (
            *_tests(STATE, "test_a_jail_number_is_never_used_again"),
            *_tests(CGROUPS, "test_a_racing_fork_bomb_is_killed_whole"),
        ),
    ),
    Case(
        "D11",
        "SIGTERM twice, SIGHUP, while calls run",
        "running calls finish, nothing is left; SIGHUP reads the settings again",
        (
            *_tests(
                LIFE,
                "test_signals_that_come_again_leave_nothing",
                "test_a_second_interrupt_ends_the_calls_and_leaves_nothing",
                "test_hangup_reads_the_settings_again",
            ),
            *_tests(
                RELOADING,
                "test_tokens_limits_and_level_change_at_once",
                "test_bad_settings_change_nothing",
                "test_a_renewed_certificate_is_shown_to_whoever_connects_next",
            ),
        ),
    ),
    Case(
        "D12",
        "a start with standard descriptors closed",
        "opened on /dev/null; it starts, calls and stops",
        _tests(LIFE, "test_closed_standard_descriptors_harm_nobody"),
    ),
    Case(
        "W1",
        "a node says a pulse in another's name, or garbage",
        "the server refuses to publish it; on its own subject it is counted and not believed",
    ),
    Case(
        "W2",
        "a node listens to another's calls, answers or admin's questions",
        "the server refuses each subscription",
    ),
    Case("W3", "another account of the same server", "hears nothing of the fleet, and is not heard"),
    Case(
        "W4",
        "no certificate, one of another authority, a server's",
        "no connection",
    ),
    Case("W5", "a message longer than max_payload", "its sender is cut off; nobody else notices"),
    Case(
        "W6",
        "a node that does not read what it is sent",
        "it is cut off before 60 MB wait for it; who sends is not held up",
    ),
    Case("W7", "a node deletes a stream", "the server refuses it"),
    Case(
        "W8",
        "a node joins the servers' cluster with its certificate",
        "no route: only hosts that the configuration names are servers",
    ),
    Case(
        "W9",
        "a node asks another, as an admin, for what is not operators' business: secrets, names, calls",
        "403; what an operator may not change, he may not by another node either",
        _tests(
            NODES,
            "test_a_node_may_ask_what_operators_may_and_no_more",
            "test_a_node_that_asks_needs_a_token_like_anybody",
        ),
    ),
    Case(
        "W10",
        "an answer of a node that is none: a bomb of zlib, cut off, of another form, in another's name",
        "counts as silence",
        _tests(NODES, "test_answers_that_are_no_answers_count_as_silence"),
    ),
    Case(
        "W11",
        "an order, a record or a name among those that servers keep that no island wrote: garbage, nesting, "
        "another client's share, another name's revision",
        "dropped and logged; what waits behind it is run, and nothing is shown that was not kept",
        _tests(
            TOGETHER, "test_messages_that_no_island_wrote_harm_nobody", "test_names_are_one_on_all_islands"
        ),
    ),
    Case(
        "W12",
        "the order of a call that runs, or is over, is published again; two nodes run one call",
        "a call that is over does not run again; it has the first result, and no other",
        _tests(
            TOGETHER,
            "test_two_runs_leave_one_result_and_every_island_finds_it",
            "test_a_call_is_awaited_cancelled_and_run_on_whichever_island",
        ),
    ),
    Case(
        "W13",
        "a caller asks for, or cancels, the call `*` or `>`",
        "404: an id is one word, never a pattern of the servers",
        _tests(TOGETHER, "test_two_runs_leave_one_result_and_every_island_finds_it"),
    ),
    Case(
        "W14",
        "one client's calls fill the fleet's queue, or its servers' room, from whichever node",
        "429 at its share, which the servers count; 503 where nothing more is kept; none is dropped",
        _tests(TOGETHER, "test_while_the_servers_are_away_or_full_that_is_said_and_nothing_is_lost"),
    ),
    Case(
        "W15",
        "a node says that another one compiled a binary, or writes other bytes for one into the store",
        "the server refuses another's name; other bytes do not have the hash, and are not run; islands that "
        "differ are named in the log, and none is believed",
        _tests(
            BUILDS,
            "test_bytes_that_are_not_what_was_said_are_not_run",
            "test_islands_that_compiled_different_bytes_are_named",
            "test_two_islands_must_agree_where_the_settings_say_so",
        ),
    ),
    Case(
        "W16",
        "a call between islands sent again, late, cut off, with answers to another's subject, or for more "
        "than this island lets its own calls use",
        "not run",
        _tests(
            CALLS,
            "test_a_call_that_is_sent_again_is_not_run_again",
            "test_an_island_takes_no_call_that_may_use_more_than_its_own",
        ),
    ),
)
