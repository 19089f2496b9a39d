// SPDX-License-Identifier: MIT
/*
 * balloon.c - virtio memory balloon (virtio 1.2, section 5.5) with statistics and
 * free page reporting.
 *
 * Reporting is what gives memory back day by day: the guest's kernel lists ranges
 * it has free, we drop them, and they come back as fresh pages when touched.  The
 * kernel offers it only where it does not care about their content.
 *
 * The statistics buffer is the guest's standing offer: it is read and put back
 * into the ring, and taken for good when fresh numbers are wanted, which makes the
 * driver send new ones.  So nothing is in flight when the device is saved.
 *
 * A guest may name pages it does not have or uses; it loses its own content then.
 */
#include "vmm/dev/balloon.h"

#include <string.h>

#include "base/wire.h"
#include "vmm/dev/devices.h"
#include "vmm/mem.h"
#include "vmm/state.h"
#include "vmm/virtio/virtio.h"

#define BALLOON_F_STATS_VQ	BIT(1)
#define BALLOON_F_DEFLATE_ON_OOM BIT(2)
#define BALLOON_F_REPORTING	BIT(5)

#define CONFIG_LEN	8	/* num_pages, actual */
#define CONFIG_ACTUAL	4
#define STAT_LEN	10	/* u16 tag, u64 value */

enum { STAT_FREE = 4, STAT_TOTAL = 5, STAT_AVAILABLE = 6, STAT_CACHES = 7 };

/* Queues that the driver did not accept are left out of the numbering. */
enum { Q_INFLATE, Q_DEFLATE, Q_STATS, Q_REPORTING, NR_QUEUES };

struct balloon {
	struct virtio_dev dev;
	uint32_t target, actual;	/* pages */
	bool stats_wanted;
	struct balloon_stats stats;
};

static struct balloon *to_balloon(struct virtio_dev *dev)
{
	return container_of(dev, struct balloon, dev);
}

static unsigned role_of(const struct virtq *vq)
{
	if (vq->index == Q_STATS && !virtio_has(vq->dev, BALLOON_F_STATS_VQ))
		return Q_REPORTING;
	return vq->index;
}

/* Page numbers, 32 bits each.  A system call each, so there is a limit. */
static void inflate(struct balloon *b, struct chain *c)
{
	uint32_t pfn[64];
	size_t n;

	while (c->out_pos < LIMIT_BALLOON_PFNS * sizeof(pfn[0]) &&
	       (n = chain_read(c, pfn, sizeof(pfn))) >= sizeof(pfn[0]))
		for (unsigned i = 0; i < n / sizeof(pfn[0]); i++)
			mem_discard(b->dev.env.mem, (gpa_t)pfn[i] << PAGE_SHIFT,
				    PAGE_SIZE);
}

/* The ranges are the buffers themselves; nothing is written to them. */
static void report(struct balloon *b, struct chain *c)
{
	for (unsigned i = c->nr_out; i < c->nr_out + c->nr_in; i++)
		mem_discard(b->dev.env.mem, c->gpa[i], c->iov[i].iov_len);
}

static void read_stats(struct balloon *b, struct chain *c)
{
	struct balloon_stats s = { .known = true };
	uint8_t raw[STAT_LEN];

	while (chain_read(c, raw, sizeof(raw)) == sizeof(raw)) {
		struct wire_r r;
		uint16_t tag;
		uint64_t val;

		wire_r_init(&r, raw, sizeof(raw));
		tag = wire_u16(&r);
		val = wire_u64(&r);
		switch (tag) {
		case STAT_FREE: s.free = val; break;
		case STAT_TOTAL: s.total = val; break;
		case STAT_AVAILABLE: s.available = val; break;
		case STAT_CACHES: s.caches = val; break;
		}
	}
	b->stats = s;
}

static void take_stats(struct balloon *b, struct virtq *vq)
{
	struct chain c;

	if (!virtq_pop(vq, &c))
		return;
	read_stats(b, &c);
	if (!b->stats_wanted) {
		virtq_unpop(vq, &c);
		return;
	}
	b->stats_wanted = false;
	virtq_push(vq, &c);
	virtq_signal(vq);
}

static void balloon_notify(struct virtio_dev *dev, struct virtq *vq)
{
	struct balloon *b = to_balloon(dev);
	unsigned role = role_of(vq);
	struct chain c;

	if (role == Q_STATS) {
		take_stats(b, vq);
		return;
	}
	while (virtq_pop(vq, &c)) {
		if (role == Q_INFLATE)
			inflate(b, &c);
		else if (role == Q_REPORTING)
			report(b, &c);
		virtq_push(vq, &c);
	}
	virtq_signal(vq);
}

struct balloon_stats balloon_stats(struct virtio_dev *dev)
{
	struct balloon *b = to_balloon(dev);

	b->stats_wanted = true;
	virtio_kick_queues(dev);
	return b->stats;
}

void balloon_set_target(struct virtio_dev *dev, uint64_t bytes)
{
	uint64_t pages = bytes >> PAGE_SHIFT;

	to_balloon(dev)->target = MIN(pages, (uint64_t)UINT32_MAX);
	virtio_config_changed(dev);
}

static void balloon_config_read(struct virtio_dev *dev, unsigned off, void *dst, unsigned len)
{
	uint8_t cfg[CONFIG_LEN];
	struct wire_w w;

	wire_w_init(&w, cfg, sizeof(cfg));
	wire_put_u32(&w, to_balloon(dev)->target);
	wire_put_u32(&w, to_balloon(dev)->actual);
	memcpy(dst, cfg + off, len);
}

static void balloon_config_write(struct virtio_dev *dev, unsigned off, const void *src,
				 unsigned len)
{
	if (off == CONFIG_ACTUAL && len == 4)
		memcpy(&to_balloon(dev)->actual, src, len);
}

static void balloon_reset(struct virtio_dev *dev)
{
	struct balloon *b = to_balloon(dev);

	b->actual = 0;
	b->stats_wanted = false;
	b->stats.known = false;
}

static void balloon_save(struct virtio_dev *dev, struct state_w *w)
{
	state_put_u32(w, to_balloon(dev)->target);
	state_put_u32(w, to_balloon(dev)->actual);
}

static void balloon_load(struct virtio_dev *dev, struct state_r *r)
{
	to_balloon(dev)->target = state_get_u32(r);
	to_balloon(dev)->actual = state_get_u32(r);
}

const struct virtio_class balloon_class = {
	.name = "balloon",
	.id = VIRTIO_ID_BALLOON,
	.nr_queues = NR_QUEUES,
	.size = sizeof(struct balloon),
	.config_size = CONFIG_LEN,
	.features = BALLOON_F_STATS_VQ | BALLOON_F_DEFLATE_ON_OOM | BALLOON_F_REPORTING,
	.reset = balloon_reset,
	.notify = balloon_notify,
	.config_read = balloon_config_read,
	.config_write = balloon_config_write,
	.save = balloon_save,
	.load = balloon_load,
	.state_version = 1,
};
