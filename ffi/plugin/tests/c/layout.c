/* Prints the layout of every struct of semblance.h: compared with layout.txt, which only grows. */
#include <stdio.h>

#include "semblance/semblance.h"

#define S(type) printf("%s %u\n", #type, (unsigned)sizeof(type));
#define F(type, field) \
  printf("%s.%s %u %u\n", #type, #field, (unsigned)offsetof(type, field), (unsigned)sizeof(((type *)0)->field));

int main(void) {
  S(semblance_error)
  F(semblance_error, struct_size) F(semblance_error, code) F(semblance_error, message)
  F(semblance_error, hint) F(semblance_error, parameter)
  S(semblance_rect)
  F(semblance_rect, x) F(semblance_rect, y) F(semblance_rect, width) F(semblance_rect, height)
  S(semblance_pixels)
  F(semblance_pixels, struct_size) F(semblance_pixels, samples) F(semblance_pixels, order)
  F(semblance_pixels, alpha) F(semblance_pixels, data) F(semblance_pixels, data_size)
  F(semblance_pixels, row_stride) F(semblance_pixels, rect) F(semblance_pixels, color)
  F(semblance_pixels, reserved) F(semblance_pixels, icc) F(semblance_pixels, icc_size)
  S(semblance_mask)
  F(semblance_mask, struct_size) F(semblance_mask, samples) F(semblance_mask, data)
  F(semblance_mask, data_size) F(semblance_mask, row_stride) F(semblance_mask, rect)
  S(semblance_job_state)
  F(semblance_job_state, struct_size) F(semblance_job_state, state) F(semblance_job_state, phase)
  F(semblance_job_state, fraction)
  S(semblance_tally)
  F(semblance_tally, struct_size) F(semblance_tally, largest_change) F(semblance_tally, changed)
  F(semblance_tally, kept) F(semblance_tally, sum_of_change) F(semblance_tally, selected)
  S(semblance_log_entry)
  F(semblance_log_entry, struct_size) F(semblance_log_entry, level) F(semblance_log_entry, time_us)
  F(semblance_log_entry, lost) F(semblance_log_entry, text)
  S(semblance_api)
  F(semblance_api, struct_size) F(semblance_api, major) F(semblance_api, version)
  F(semblance_api, code_name) F(semblance_api, phase_name) F(semblance_api, get_extension)
  F(semblance_api, string_free) F(semblance_api, engine_create) F(semblance_api, engine_destroy)
  F(semblance_api, engine_load) F(semblance_api, engine_load_start)
  F(semblance_api, engine_describe) F(semblance_api, engine_attributes)
  F(semblance_api, engine_parameters) F(semblance_api, engine_purge) F(semblance_api, log_poll)
  F(semblance_api, job_start) F(semblance_api, job_poll) F(semblance_api, job_wait)
  F(semblance_api, job_cancel) F(semblance_api, job_take) F(semblance_api, job_free)
  F(semblance_api, result_extent) F(semblance_api, result_input_needed)
  F(semblance_api, result_render) F(semblance_api, result_recipe) F(semblance_api, result_report)
  F(semblance_api, result_free) F(semblance_api, edit) F(semblance_api, result_render_reduced)
  return 0;
}
