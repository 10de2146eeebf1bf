/* SPDX-License-Identifier: BSD-3-Clause */
/* clapi.h: the few OpenCL calls of the executors. Every OpenCL object starts with a pointer to its
 * driver's dispatch table (cl_khr_icd), so handles made by another loader work here and nothing is
 * linked. */
#ifndef HB_CLAPI_H
#define HB_CLAPI_H
#define CL_TARGET_OPENCL_VERSION 120
#include <CL/cl_icd.h>

static inline const cl_icd_dispatch *hb_cl(const void *object)
{
    return *(cl_icd_dispatch *const *)object;
}

/* CL_COMPLETE (0), a positive status while it runs, negative after an abnormal end. */
static inline cl_int hb_cl_status(cl_event event)
{
    cl_int status = CL_QUEUED;
    cl_int err = hb_cl(event)->clGetEventInfo(event, CL_EVENT_COMMAND_EXECUTION_STATUS,
                                              sizeof status, &status, NULL);
    return err == CL_SUCCESS ? status : err;
}

#endif
