// SPDX-License-Identifier: MIT
/* agent.c - frame heads of the agent protocol, shared by host and guest. */
#include "proto/agent.h"

void agent_head_put(uint8_t head[AGENT_HEAD], enum agent_frame type, uint32_t len)
{
	head[0] = len;
	head[1] = len >> 8;
	head[2] = len >> 16;
	head[3] = len >> 24;
	head[4] = type;
}

bool agent_head_get(const uint8_t head[AGENT_HEAD], enum agent_frame *type,
		    uint32_t *len)
{
	*len = head[0] | head[1] << 8 | head[2] << 16 | (uint32_t)head[3] << 24;
	*type = head[4];
	return *len <= AGENT_FRAME_MAX && head[4] >= AGENT_REQ &&
	       head[4] <= AGENT_CREDIT;
}
