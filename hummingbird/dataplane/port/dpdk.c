/* SPDX-License-Identifier: BSD-3-Clause */
/* dpdk.c: finds the plug-in that has the ports of DPDK's drivers. It stays loaded: DPDK can be
 * started once in a process, and not be unloaded. */
#include <dlfcn.h>
#include <string.h>

#include "dataplane.h"
#include "dpdk.h"

static const hb_dpdk_calls *load(hb_dataplane *dp, const char *path)
{
    void *library = dlopen(path, RTLD_NOW | RTLD_LOCAL);
    const hb_dpdk_calls *plugin = library ? dlsym(library, HB_DPDK_PLUGIN) : NULL;
    if (!plugin)
        hb_fail(dp, "the plug-in for DPDK does not load: %s", dlerror());
    else if (plugin->interface != HB_DPDK_INTERFACE)
        hb_fail(dp, "%s was built for another version of the data plane\nrun make%s", path,
                strstr(path, "mdpdk") ? " mdpdk" : "");
    else
        return plugin;
    return NULL;
}

int hb_add_dpdk(hb_dataplane *dp, const uint32_t *lcores, const hb_dpdk *params)
{
    static const hb_dpdk_core core = {.alloc = hb_alloc, .release = hb_release};
    hb_port *queues[HB_MAX_LCORES];
    hb_port_home home = {.arena = &dp->arena, .cache = &dp->cache};
    const hb_dpdk_calls *plugin = load(dp, params->plugin);
    if (!plugin || plugin->open(&core, &home, params, queues, dp->error, sizeof dp->error))
        return -1;
    return hb_add_queues(dp, lcores, queues, params->queues);
}
