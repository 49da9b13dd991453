; One edit of a picture by GIMP 3 without a window:
;   gimp-console-3.0 -i -d -f --batch-interpreter=plug-in-script-fu-eval \
;     -b "$(cat examples/gimp/edit.scm) (edit \"in.png\" \"out.png\" \"sunset=0.8\")" --quit
(define (edit in out attributes)
  (let* ((image (car (gimp-file-load RUN-NONINTERACTIVE in)))
         (layers (car (gimp-image-get-selected-drawables image))))
    (plug-in-semblance-edit #:run-mode RUN-NONINTERACTIVE #:image image #:drawables layers
                            #:attributes attributes)
    (gimp-file-save RUN-NONINTERACTIVE image out)
    (gimp-image-delete image)))
