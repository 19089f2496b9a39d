/* SPDX-License-Identifier: MIT */
/* net.h - what virtio-net is made from. */
#ifndef VMM_DEV_NET_H
#define VMM_DEV_NET_H

#include <stdbool.h>
#include <stdint.h>

struct netif;
struct virtio_dev;

struct net_config {
	uint8_t mac[6];
	struct netif *netif;	/* taken over, also when virtio_new() fails */
};

/* The backend, for port forwards; borrowed. */
struct netif *net_netif(struct virtio_dev *dev);
void net_set_link(struct virtio_dev *dev, bool up);

#endif
