/* SPDX-License-Identifier: MIT */
/*
 * cmd.h - one command of the command line, and what commands share.
 *
 * A command is one file cmd_NAME.c with one `struct cmd`, and one row in
 * commands.c.  It is written on machinen.h alone.
 */
#ifndef CLI_CMD_H
#define CLI_CMD_H

#include <jansson.h>
#include <stdbool.h>
#include <sys/types.h>

#include "base/opt.h"
#include "machinen.h"

struct buf;

#define CMD_JSON_VERSION 1	/* schema_version of every document */
#define CMD_OPTS_MAX	 2048	/* bytes of the biggest command's options */

struct cmd {
	struct opt_cmd opt;
	int (*run)(const void *opts);	/* exit status */
};

/* Ends with NULL. */
extern const struct cmd *const commands[];
const struct cmd *cmd_find(const char *name);	/* by name or alias */

/* Every command's --json flag and struct field of that name. */
#define CMD_OPT_JSON(type) \
	{ .name = "json", .kind = OPT_SWITCH, .offset = offsetof(type, json), \
	  .help = "print one JSON document" }
#define CMD_ARG_TARGET(type) \
	{ .name = "TARGET", .help = "name or pid of a running VM", \
	  .offset = offsetof(type, target), .words = OPT_WORDS_TARGET }

/* --- out.c: what goes to people and programs ------------------------------ */

/* "machinen: (CODE): message" and its causes, or the JSON form; gives 1. */
int out_error(const struct mn_error *err, bool json);
/* The same for an error of the command line; gives 2. */
int out_usage_error(enum mn_code code, bool json, const char *fmt, ...)
	__attribute__((format(printf, 3, 4)));
/* Prints it with schema_version first; takes the reference.  Gives 0. */
int out_json(json_t *doc);
/* A note on stderr: "machinen: text". */
void out_note(const char *fmt, ...) __attribute__((format(printf, 1, 2)));
bool out_colour(int fd);
unsigned out_width(void);		/* columns of stdout's terminal; 0: none */
/* "1.5 GiB", "3 h 12 m" */
void out_bytes(char *to, size_t size, uint64_t bytes);
/* A row of inspect: a name and the start of its digest, either may be "". */
void out_identity(const char *row, const char *name, const char *sha256);
void out_duration(char *to, size_t size, uint64_t ms);

/* Steps and bars on a terminal, quiet elsewhere.  For mn_*'s `event`. */
struct progress {
	bool tty;		/* stderr is a terminal */
	bool phases;		/* also tell each phase's time */
	bool shown;		/* a line is to be erased */
	uint64_t when;		/* ns; of the last amount that was shown */
};

void progress_init(struct progress *p);
int progress_event(const struct mn_event *ev, void *arg);
void progress_end(struct progress *p);

/* --- terminal.c: a command of a VM on our streams ------------------------- */

/*
 * Runs a command with stdin, stdout and stderr passed through; forwards SIGINT,
 * SIGTERM, SIGHUP, and with cfg->tty makes the terminal raw and follows its size.
 * With detach_keys, Ctrl-] twice leaves the command to itself.  0 with *status, or
 * the error's exit status; -ESRCH when there is no main command to join.
 */
int terminal_exec(struct mn_vm *vm, struct mn_exec *cfg, bool detach_keys,
		  int *status);
/*
 * The same in a VM by name or pid, after the last `tail` lines of its console; all
 * of a command's work.  The exit status.
 */
int terminal_session(const char *target, struct mn_exec *cfg, uint64_t tail,
		     bool detach_keys);
/* Both stdin and stdout are terminals. */
bool terminal_both(void);


/* --- console.c: a VM's logs ------------------------------------------------ */

/* Copies from `at` to the end to stdout; the new place, -1 when stdout is gone. */
off_t console_copy(int fd, off_t at);
/* Where the last lines begin. */
off_t console_tail(int fd, uint64_t lines);
/* Goes on until the VM ends or stdout is gone (cmd_logs.c). */
int console_follow(struct mn_vm *vm, int fd, off_t at);
int console_print(struct mn_vm *vm, uint64_t lines, struct mn_error *err);
/*
 * What the network refused, as notes: with a VM that ends goes its log.  Takes
 * mn_vm_log()'s descriptor over, or its error.
 */
void console_refusals(int log);

/* --- bundle.c: what a bundle is -------------------------------------------- */

int bundle_inspect(const char *path, bool verify, bool json);	/* exit status */

/* --- port.c: port forwards in words --------------------------------------- */

/* "[ADDR:]HOST:GUEST[/tcp|udp]"; 0, or the exit status after saying why not. */
int port_parse(const char *word, struct mn_port *p, bool json);
/* "ADDR:PORT" of the host, an IPv6 address in brackets; text. */
#define PORT_TEXT 80
const char *port_host(const struct mn_port *p, char text[PORT_TEXT]);

/* --- pair.c --------------------------------------------------------------- */

/*
 * "HOST:GUEST", cut at the last colon: *text holds both and is the caller's to
 * free.  0, or the exit status after saying with `code` why not.
 */
int path_pair(const char *word, enum mn_code code, bool json, char **text,
	      const char **host, const char **guest);

/* --- steps.c: what a bake is told to do ----------------------------------- */

struct steps {
	struct mn_step *step;
	const char **env;	/* NULL-terminated, or NULL */
	const char *cwd;	/* borrowed, or NULL */
	size_t nr, nr_env;
	char **text;		/* what the others point into */
	size_t nr_text;
};

/* Each adds one; 0, or the exit status after saying why not. */
int steps_run(struct steps *s, const char *line);
int steps_copy(struct steps *s, const char *pair);
int steps_env(struct steps *s, const char *word);
/* A file of steps, one a line: "run SHELL", "copy HOST:GUEST", "env K=V", "cwd DIR". */
int steps_file(struct steps *s, const char *path);
void steps_done(struct steps *s);

#endif
