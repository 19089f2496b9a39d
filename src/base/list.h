/* SPDX-License-Identifier: MIT */
/*
 * list.h - intrusive circular doubly linked list.  A node not in a list has
 * been list_init()ed or list_del()ed, so deleting twice is harmless.
 */
#ifndef BASE_LIST_H
#define BASE_LIST_H

#include <stdbool.h>

#include "base/util.h"

struct list {
	struct list *next, *prev;	/* borrowed; self when empty */
};

#define LIST_INIT(name) { &(name), &(name) }

static inline void list_init(struct list *l)
{
	l->next = l->prev = l;
}

static inline bool list_empty(const struct list *l)
{
	return l->next == l;
}

/* Inserts `n` before `at`: at the tail when `at` is the head. */
static inline void list_add_tail(struct list *at, struct list *n)
{
	n->prev = at->prev;
	n->next = at;
	at->prev->next = n;
	at->prev = n;
}

static inline void list_add(struct list *head, struct list *n)
{
	list_add_tail(head->next, n);
}

static inline void list_del(struct list *n)
{
	n->prev->next = n->next;
	n->next->prev = n->prev;
	list_init(n);
}

#define list_entry(p, type, field) container_of(p, type, field)
#define list_first(head, type, field) list_entry((head)->next, type, field)

#define list_for_each(it, head, field) \
	for (it = list_entry((head)->next, __typeof__(*it), field); \
	     &it->field != (head); \
	     it = list_entry(it->field.next, __typeof__(*it), field))

#define list_for_each_safe(it, tmp, head, field) \
	for (it = list_entry((head)->next, __typeof__(*it), field), \
	     tmp = list_entry(it->field.next, __typeof__(*it), field); \
	     &it->field != (head); \
	     it = tmp, tmp = list_entry(it->field.next, __typeof__(*it), field))

#endif
